"""Durable contributions through the real aggregator and a real SQLite file (synchronous=FULL): how many, at what cost.

    python benchmarks/ingest.py [--devices 1000 5000 10000] [--broker]

Each device contributes once, in a drawn order: 1,000 probes x 10 classes in u8-sqrt, about 9 kB deflated. Counted from
the first message handed to the aggregator to the last receipt; every contribution is committed before it is receipted.
Without --broker a link in this process feeds it; with --broker a real Mosquitto does, from one publishing client, whose
CPU seconds count as well.

CPU seconds of a busy machine tell little, so the bare work is done beside it, a few hundred contributions of the one
and of the other in turn: inflate the body, two SHA-256 (of the payload, of what it decoded to), one SQLite row of 10 kB
in groups as large. Nobody can do with less. In which stages the rest goes is told by clocks, in a run of its
own, for they take time as well.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import random
import sqlite3
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import patch

import numpy as np

from broker_server import accepted, ingest
from broker_server.accepted import Accepted
from broker_server.aggregator import GROUP_MESSAGES, Aggregator
from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.brokers.mosquitto import mosquitto_process
from broker_server.core import admission
from broker_server.core.labels import StoredLabels
from broker_server.ingest import Ingest
from broker_server.journal import Journal
from broker_server.publisher import Publisher
from broker_server.records.scribe import Scribe
from broker_server.service import utc_ms
from broker_server.settings import ProbeSet, RoundSettings, Settings
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Contribution, DeviceState, Kind, RoundOffer
from fd_protocol.parts import split
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, Link, LinkEvent, LinkSettings, LinkUp
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store

PROBES = ProbeSet(sha256(b"probes"), count=1000, classes=10, task=sha256(b"task"))
TOPICS = Topics("bench")
TURN = 500
"""Contributions between two turns of the bare work."""
OTHER, COMMIT = "queue, folds, acknowledgements", "commit"
STAGES: tuple[tuple[Any, str, str], ...] = (
    (Ingest, "take", "topic, rate, offer"),
    (codec, "decode", "messages read"),
    (ingest, "join", "digests"),
    (accepted, "sha256", "digests"),
    (Accepted, "rows", "doubles looked for"),
    (admission, "decode_body", "body inflated, rows checked"),
    (StoredLabels, "to_bytes", "content made"),
    (Accepted, "write", "payloads written"),
    (Journal, "write", "journal written"),
    (Scribe, "write", "records written"),
    (Store, "_execute", COMMIT),
    (Publisher, "receipt", "receipts"),
)


class DirectLink:
    """A link without a broker: what is acknowledged and receipted is only counted."""

    def __init__(self) -> None:
        self.events: SimpleQueue[LinkEvent] = SimpleQueue()
        self.receipts = 0
        self.offer: RoundOffer | None = None
        self.events.put(LinkUp(session_present=False, max_packet_bytes=1 << 20))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> int:
        del retain, expiry_s
        self.receipts += topic.endswith("/receipt")
        if topic == TOPICS.round:
            self.offer = codec.decode(payload, RoundOffer)
        return 0

    def ack(self, arrived: Arrived) -> None:
        del arrived

    def close(self) -> None:
        """Nothing to leave."""


class BareWork:
    """What no server can leave out, in as few steps as there are."""

    def __init__(self, folder: Path, made: Sequence[bytes]) -> None:
        self._made = [(payload, codec.decode(payload, Contribution).body) for payload in made]
        self._database = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE blobs (bytes BLOB)"):
            self._database.execute(statement)

    def do(self, count: int) -> None:
        for start in range(0, count, GROUP_MESSAGES):
            self._database.execute("BEGIN")
            rows = [self._row(number) for number in range(start, min(count, start + GROUP_MESSAGES))]
            self._database.executemany("INSERT INTO blobs VALUES (?)", rows)
            self._database.execute("COMMIT")

    def _row(self, number: int) -> tuple[bytes]:
        payload, body = self._made[number % len(self._made)]
        hashlib.sha256(payload).digest()
        content = zlib.decompress(body)
        hashlib.sha256(content).digest()
        return (content,)


class Clocks:
    """Tell in which stage the CPU seconds of this thread go; the clock inside stops the one around it."""

    def __init__(self) -> None:
        self.spent_s: Counter[str] = Counter()
        self._running = [OTHER]
        self._since_s = 0.0

    @contextmanager
    def going(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, stage in STAGES:
                stack.enter_context(patch.object(owner, name, self._clocked(getattr(owner, name), stage)))
            self._since_s = time.thread_time()
            yield
            self._stop()

    def _clocked(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def clocked(*arguments: Any, **words: Any) -> Any:
            if stage == COMMIT and arguments[1:] != ("COMMIT",):  # any other statement belongs to the stage around it
                return function(*arguments, **words)
            self._stop()
            self._running.append(stage)
            try:
                return function(*arguments, **words)
            finally:
                self._stop()
                self._running.pop()

        return clocked

    def _stop(self) -> None:
        now_s = time.thread_time()
        self.spent_s[self._running[-1]] += now_s - self._since_s
        self._since_s = now_s


@dataclass(frozen=True)
class Cost:
    """Of taking contributions in: seconds by the wall, of the CPU, and of the CPU for the bare work beside it."""

    devices: int
    wall_s: float
    cpu_s: float
    bare_s: float

    def __str__(self) -> str:
        each = 1000 / self.devices
        facts = f"{self.devices / self.wall_s:,.0f} | {self.cpu_s * each:.2f} | {self.bare_s * each:.2f}"
        return f"| {self.devices:,} | {facts} | {self.cpu_s / self.bare_s:.2f} |"


def payloads(offer: RoundOffer, count: int) -> list[bytes]:
    """A few different payloads, as hard to deflate as those of a federation that has just begun."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        p = rng.dirichlet(np.full(PROBES.classes, 0.8), PROBES.count).astype(np.float32)
        body = encode_body(quantise(SoftLabels(p, offer.temperature), offer.codec))
        made.append(codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, body)))
    return made


def messages(offer: RoundOffer, made: Sequence[bytes], devices: int) -> list[tuple[str, bytes]]:
    """One contribution of each device: (topic, packet), in no order that a table would have them in."""
    packets = [codec.encode(split(payload, offer.round, Kind.CONTRIBUTION)[0]) for payload in made]
    drawn = random.Random(0).sample(range(devices), devices)
    return [(TOPICS.upload(f"dev-{device:06d}"), packets[device % len(packets)]) for device in drawn]


def births(devices: int) -> Iterator[tuple[str, bytes]]:
    state = codec.encode(DeviceState(1, online=True, task=PROBES.task, capabilities=("u8-sqrt",)))
    for device in range(devices):
        yield TOPICS.state(f"dev-{device:06d}"), state


def aggregator(folder: Path, link: Link, devices: int) -> Aggregator:
    """One device too few for a quorum: making the consensus, which the service does on another thread, is left out."""
    settings = Settings("bench", rounds=RoundSettings(quorum=devices + 1, minimum_online=devices, duration_s=3_600))
    return Aggregator(settings, Store.open(folder / "server.db"), link, utc_ms, probes=PROBES)


def offered(folder: Path, devices: int) -> tuple[Aggregator, DirectLink, RoundOffer]:
    """A server that has offered a round to `devices`."""
    link = DirectLink()
    server = aggregator(folder, link, devices)
    for topic, packet in births(devices):
        link.events.put(Arrived(topic, packet, retained=True, token=0))
    while server.pump(0):
        pass
    assert link.offer is not None
    return server, link, link.offer


def take_in(server: Aggregator, link: DirectLink, sent: Sequence[tuple[str, bytes]]) -> None:
    awaited = link.receipts + len(sent)
    for topic, packet in sent:
        link.events.put(Arrived(topic, packet, retained=False, token=0))
    while link.receipts < awaited:
        server.pump(0)


def measure_direct(folder: Path, devices: int) -> Cost:
    server, link, offer = offered(folder, devices)
    made = payloads(offer, 50)
    sent, bare = messages(offer, made, devices), BareWork(folder, made)
    wall_s = cpu_s = bare_s = 0.0
    for start in range(0, devices, TURN):
        turn = sent[start : start + TURN]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        take_in(server, link, turn)
        ended_cpu_s = time.process_time()
        wall_s, cpu_s = wall_s + time.perf_counter() - began_s, cpu_s + ended_cpu_s - began_cpu_s
        bare.do(len(turn))
        bare_s += time.process_time() - ended_cpu_s
    return Cost(devices, wall_s, cpu_s, bare_s)


def measure_stages(folder: Path, devices: int) -> Counter[str]:
    """Return the CPU seconds of each stage."""
    server, link, offer = offered(folder, devices)
    sent, clocks = messages(offer, payloads(offer, 50), devices), Clocks()
    with clocks.going():
        take_in(server, link, sent)
    return clocks.spent_s


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    port = free_port()
    config = folder / "mosquitto.conf"
    lines = [f"user {getpass.getuser()}", f"listener {port} {LOOPBACK}", "allow_anonymous true"]
    config.write_text("\n".join([*lines, "max_queued_messages 1000000", ""]))
    with mosquitto_process(config, port):
        yield port


def measure_broker(folder: Path, devices: int) -> Cost:
    with ExitStack() as stack:
        port = stack.enter_context(broker(folder))
        fleet = _link(stack, "fleet", port, (TOPICS.round, TOPICS.receipt("+")))
        settings = Settings("bench")
        link = _link(stack, "aggregator", port, settings.subscriptions, manual_ack=True)
        server = aggregator(folder, link, devices)
        for topic, packet in births(devices):
            fleet.publish(topic, packet, retain=True)
        offer = None
        while offer is None:
            server.pump(0.01)
            offer = next(
                (codec.decode(a.payload, RoundOffer) for a in _arrived(fleet) if a.topic == TOPICS.round), None
            )
        made = payloads(offer, 50)
        sent, bare = messages(offer, made, devices), BareWork(folder, made)
        began_s, began_cpu_s, receipts = time.perf_counter(), time.process_time(), 0
        for topic, packet in sent:
            fleet.publish(topic, packet)
        while receipts < devices:
            server.pump(0.01)
            receipts += sum(a.topic.endswith("/receipt") for a in _arrived(fleet))
        wall_s, ended_cpu_s = time.perf_counter() - began_s, time.process_time()
        bare.do(devices)
        return Cost(devices, wall_s, ended_cpu_s - began_cpu_s, time.process_time() - ended_cpu_s)


def _link(stack: ExitStack, name: str, port: int, topics: tuple[str, ...], *, manual_ack: bool = False) -> MqttLink:
    link = MqttLink(LinkSettings(name, port=port, subscriptions=topics, manual_ack=manual_ack, receive_maximum=200))
    stack.callback(link.close)
    return link


def _arrived(link: Link) -> Iterator[Arrived]:
    while not link.events.empty():
        event = link.events.get()
        if isinstance(event, Arrived):
            yield event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1_000, 5_000, 10_000])
    parser.add_argument("--broker", action="store_true", help="through Mosquitto")
    arguments = parser.parse_args()
    measure = measure_broker if arguments.broker else measure_direct
    print(f"Through {'Mosquitto' if arguments.broker else 'a link in this process'}.\n")
    print("| devices | contributions/s | CPU each, ms | bare work, ms | ratio |\n| --- | --- | --- | --- | --- |")
    for devices in arguments.devices:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(Path(folder), devices), flush=True)
    if not arguments.broker:
        with tempfile.TemporaryDirectory() as folder:
            spent_s = measure_stages(Path(folder), arguments.devices[0])
        print("\n| stage | share of the CPU |\n| --- | --- |")
        for stage, seconds in spent_s.most_common():
            print(f"| {stage} | {seconds / spent_s.total():.0%} |")


if __name__ == "__main__":
    main()
