"""A thousand MQTT sessions in one federation: does the round close, and what does it take?

    python benchmarks/sessions.py [--devices 1000] [--processes 4] [--rounds 2]

Real Mosquitto, a real `broker-server run`, and so many sessions of the devices' own link, spread over a few processes.
Each waits for the offer, sends 1,000 probes x 10 classes in u8-sqrt (about 9 kB) and waits for its receipt. Models of
devices are left out: it is the server and the broker that are asked.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import psutil
from ingest import broker, payloads

from broker_server.cli import CONFIG_NAME
from broker_server.cli import main as broker_server
from fd_protocol import codec
from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.messages import ConsensusBlock, DeviceState, Kind, Receipt, RoundOffer, Status
from fd_protocol.parts import split
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe

FEDERATION = "bench"
TOPICS = Topics(FEDERATION)
TASK = Task(tuple("0123456789"), (12,), "uint8", Preprocessing(1 / 255))
PROBES = 1000
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Told:
    """What a process of devices saw of a round: when, in seconds of a clock that all processes share."""

    round: int
    offered_s: float
    receipted_s: float
    stored: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(broker(folder))
        server = serve(stack, config(folder, port, asked.devices, asked.rounds))
        watch = stack.enter_context(closing(_watch(port)))
        told, shares = _devices(stack, port, asked.devices, asked.processes), asked.processes
        for number in range(1, asked.rounds + 1):
            consensus_s = _consensus_s(watch, number)
            seen = [told.get(timeout=PATIENCE_S) for _ in range(shares)]
            print(_line(number, seen, consensus_s, server), flush=True)


def _line(number: int, seen: list[Told], consensus_s: float, server: psutil.Process) -> str:
    assert {one.round for one in seen} == {number}
    offered_s, stored = min(one.offered_s for one in seen), sum(one.stored for one in seen)
    receipts_s, closed_s = max(one.receipted_s for one in seen) - offered_s, consensus_s - offered_s
    with server.oneshot():
        cpu_s, rss_mb = sum(server.cpu_times()[:2]), server.memory_info().rss / 1e6
    return (
        f"round {number}: {stored} contributions receipted as stored, the last {receipts_s:.1f} s after the offer; "
        f"consensus after {closed_s:.1f} s; server so far {cpu_s:.1f} s CPU, {rss_mb:.0f} MB"
    )


def config(folder: Path, port: int, devices: int, rounds: int) -> Path:
    samples = np.random.default_rng(0).integers(0, 256, (PROBES, 12), dtype=np.uint8)
    broker_server(["init", str(folder), "--federation", FEDERATION, "--trust", "none"])
    nobody = np.empty(0, np.int64)
    build(Recipe("small", "mlp-s", tflite="none"), TASK, FactoryData(samples[:0], nobody, samples), folder / "bundle")
    build_public_set(folder / "public_set", samples, TASK, seed=0)
    path = folder / CONFIG_NAME
    text = path.read_text()
    for key, default, value in (
        ("port", 8883, port),
        ("minimum_online", 2, devices),
        ("quorum", 2, devices),
        ("count", 0, rounds),
    ):
        assert f"\n{key} = {default}" in text, key
        text = text.replace(f"\n{key} = {default}", f"\n{key} = {value}")
    path.write_text(text)
    return path


def serve(stack: ExitStack, config: Path) -> psutil.Process:
    command = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]
    process = subprocess.Popen([*command, "run", "--config", str(config)], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return psutil.Process(process.pid)


def _watch(port: int) -> MqttLink:
    return MqttLink(LinkSettings("watch", port=port, subscriptions=TOPICS.device_filters("watch")))


def _consensus_s(watch: MqttLink, number: int) -> float:
    """Return when the consensus of a round came."""
    while True:
        event = watch.events.get(timeout=PATIENCE_S)
        if isinstance(event, Arrived) and "/consensus/" in event.topic:
            block = codec.decode(event.payload, ConsensusBlock)
            if block.round.number == number and block.block == block.blocks - 1:
                return time.monotonic()


def _devices(stack: ExitStack, port: int, devices: int, processes: int) -> Queue[Told]:
    context = multiprocessing.get_context("spawn")
    told: Queue[Told] = context.Queue()
    for names in np.array_split([f"dev-{number:04d}" for number in range(devices)], processes):
        process = context.Process(target=_sessions, args=(port, names.tolist(), told), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(process.kill)
    return told


def _sessions(port: int, names: list[str], told: Queue[Told]) -> None:
    """Be these devices, round after round."""
    links = {name: _session(port, name) for name in names}
    number = 0
    while True:
        number += 1
        offers = {name: _next(link, RoundOffer, number) for name, link in links.items()}
        offered_s, made = time.monotonic(), payloads(offers[names[0]], 20)
        for index, (name, offer) in enumerate(offers.items()):
            for part in split(made[index % len(made)], offer.round, Kind.CONTRIBUTION):
                links[name].publish(TOPICS.upload(name), codec.encode(part))
        stored = sum(_next(link, Receipt, number).status is Status.STORED for link in links.values())
        told.put(Told(number, offered_s, time.monotonic(), stored))


def _session(port: int, name: str) -> MqttLink:
    link = MqttLink(LinkSettings(name, port=port, subscriptions=(TOPICS.round, TOPICS.receipt(name))))
    state = DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",))
    link.publish(TOPICS.state(name), codec.encode(state), retain=True)
    return link


def _next(link: MqttLink, kind: type[RoundOffer | Receipt], number: int) -> RoundOffer | Receipt:
    """Return the next message of a kind about a round."""
    topic_end = "/round" if kind is RoundOffer else "/receipt"
    while True:
        event = link.events.get(timeout=PATIENCE_S)
        if isinstance(event, Arrived) and event.topic.endswith(topic_end):
            message = codec.decode(event.payload, kind)
            if message.round.number == number:
                return message


if __name__ == "__main__":
    main()
