"""What a device costs: time from start to subscribed, memory of its two processes, disk, idle traffic, time to stop.

    python benchmarks/agent.py [--minutes M] [runtime ...]      default: 1 minute, onnxruntime litert
    python benchmarks/agent.py --keep arm64.json                on another architecture
    python benchmarks/agent.py --beside arm64.json              its rows too, in the last table

One real `edge-agent` at a real broker on this machine, Mosquitto with TLS and a certificate where it is installed: a
CNN of 28x28 images with an int8 backbone, 1000 probes, 300 private rows; it warms up, maps its competence, contributes
and trains. It starts from byte code, as a package is installed. The data are noise: only cost is measured.

The second table has the form of Greengrass nucleus lite: after a warm-up of half as long, the median of the
proportional set size (PSS) over M minutes, a sample every 2 s (they: 10 minutes after 5, every 10 s: `--minutes 10`).
Idle traffic is TCP payload both ways over the same minutes, TLS records and keepalive (60 s) included, the handshake
not. The third table has a row for each architecture. Those of boards that nobody has measured are estimates: memory as
here, since all are 64-bit and hold the same; the start by 7-Zip's rating of a core against this machine's
(`model_export.planning.profiles`), as an interpreter that loads modules is bound by that.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from threading import Thread

import numpy as np
from gauges import Peak, proportional_mb, resident_mb, tree, used_s

from fd_protocol import codec
from fd_protocol.identity import RoundId, sha256
from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.messages import (
    Codec,
    ConsensusBlock,
    Kind,
    Part,
    Receipt,
    RoundOffer,
    RoundReport,
    Sampling,
    Slice,
    Status,
    TrainingTerms,
)
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics, parse
from fd_runtime.artifacts import PublicSet, load_public_set
from fd_runtime.links.link import Arrived, LinkSettings, TlsFiles
from fd_runtime.links.mqtt_link import MqttLink
from fleet_sim.real.broker import Broker, make_broker
from fleet_sim.real.wire_meter import WireMeter
from model_export.building import build
from model_export.planning.profiles import PROFILES
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe

DEVICE, FEDERATION, SERVER = "bench", "bench", "server"
TOPICS = Topics(FEDERATION)
TASK = Task(tuple("0123456789"), (1, 28, 28), "uint8", Preprocessing(1 / 255))
STARTS = 5
PATIENCE_S = 60.0
SAMPLE_S = 2.0
BOARDS = ("pi-4", "pi-5")
ROUND = RoundId(FEDERATION, 1, 1)
SETTINGS = """
[device]
id = "{device}"
federation = "{federation}"
[broker]
host = "127.0.0.1"
port = {port}
{tls}
[model]
bundle = "bundle"
public_set = "public"
runtime = "{runtime}"
[data]
private = "private.npz"
[state]
folder = "state"
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured. Memory in MB: of a process, resident (RSS) or with shared pages by share (PSS).

    `start_cpu_s`: processor time of the whole tree until its worker has loaded.
    """

    start_s: float
    start_cpu_s: float
    loaded_mb: float
    peak_mb: float
    supervisor_mb: float
    stop_s: float
    idle: Idle


@dataclass(frozen=True, slots=True)
class Idle:
    """A device that waits for a round, over some minutes: medians, and bytes a day."""

    supervisor_rss_mb: float
    supervisor_pss_mb: float
    worker_pss_mb: float
    pss_mb: float
    most_pss_mb: float
    disk_mb: float
    up_mb_a_day: float
    down_mb_a_day: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What devices cost on an architecture, by runtime; `load` of the machine meanwhile, a mean over a minute."""

    architecture: str
    load: float
    costs: dict[str, Cost]

    @classmethod
    def read(cls, path: Path) -> Machine:
        told = json.loads(path.read_text())
        costs = {name: Cost(**{**cost, "idle": Idle(**cost["idle"])}) for name, cost in told["costs"].items()}
        return cls(told["architecture"], told["load"], costs)


@dataclass(frozen=True, slots=True)
class Place:
    """Where devices run: a folder, the broker, and the meter before it."""

    folder: Path
    broker: Broker
    meter: WireMeter
    port: int
    minutes: float

    def tls(self, name: str) -> TlsFiles | None:
        return self.broker.identities.get(name)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a device costs.")
    parser.add_argument("runtimes", nargs="*", default=["onnxruntime", "litert"], metavar="runtime")
    parser.add_argument("--minutes", type=float, default=1.0, help="that an idle device is watched")
    parser.add_argument("--keep", type=Path, help="write what was found into this file")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="files of other architectures")
    arguments = parser.parse_args()
    compile_as_installed()
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), datetime.now(timezone.utc)
        broker = make_broker(folder / "broker", FEDERATION, SERVER, [DEVICE], now, embedded=False)
        with broker.process, WireMeter(broker.process.port) as meter:
            place = Place(folder, broker, meter, meter.add(DEVICE), arguments.minutes)
            public = prepare(folder)
            costs = {runtime: measure(place, runtime, public) for runtime in arguments.runtimes}
            report(costs, place)
    here = Machine(platform.machine(), os.getloadavg()[0], costs)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(asdict(here), indent=1))
    footprints([here, *map(Machine.read, arguments.beside)])


def compile_as_installed() -> None:
    """Write byte code beside our modules, as installing a package does: compiling costs a start time and memory."""
    for package in ("fd_protocol", "fd_runtime", "edge_agent"):
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)


def report(costs: dict[str, Cost], place: Place) -> None:
    secured = "TLS" if place.broker.identities else "no TLS"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {secured}\n")
    print("| runtime | start to subscribed, s | tree loaded, MB | peak over a round, MB | supervisor, MB | stop, s |")
    print("|---|---|---|---|---|---|")
    for runtime, cost in costs.items():
        memory = f"{cost.loaded_mb:.0f} | {cost.peak_mb:.0f} | {cost.supervisor_mb:.0f}"
        print(f"| {runtime} | {cost.start_s:.2f} | {memory} | {cost.stop_s:.2f} |")
    print("\nThese are resident set sizes, added up. Idle, as Greengrass nucleus lite reports itself:\n")
    print("| runtime | supervisor RSS, MB | its PSS | worker PSS | both | most | disk, MB | up, MB/day | down |")
    print("|---|---|---|---|---|---|---|---|---|")
    for runtime, idle in ((runtime, cost.idle) for runtime, cost in costs.items()):
        memory = f"{idle.supervisor_rss_mb:.1f} | {idle.supervisor_pss_mb:.1f} | {idle.worker_pss_mb:.1f}"
        both = f"{idle.pss_mb:.1f} | {idle.most_pss_mb:.1f} | {idle.disk_mb:.2f}"
        print(f"| {runtime} | {memory} | {both} | {idle.up_mb_a_day:.3f} | {idle.down_mb_a_day:.3f} |")
    print(f"\n{place.minutes:g} min after {place.minutes / 2:g} min of warm-up, a sample every {SAMPLE_S:g} s.")
    print("Targets: subscribed within 1.5 s, supervisor 30 MB RSS, both 80 MB PSS, peak 120 MB, 0.1 MB a day.")


def footprints(machines: list[Machine]) -> None:
    """Print a row for each architecture and runtime, and what to expect of boards by the first machine."""
    columns = "PSS idle, MB | most | RSS in a round, MB | start, s | its processor s | disk, MB"
    print(f"\n| architecture | runtime | {columns} |\n|---|---|---|---|---|---|---|---|")
    for machine in machines:
        for runtime, cost in machine.costs.items():
            row = f"{_memory(cost)} | {cost.start_s:.2f} | {cost.start_cpu_s:.2f} | {_disk(cost)}"
            print(f"| {machine.architecture}, load {machine.load:.1f} | {runtime} | {row} |")
    for name in BOARDS:
        slower = PROFILES[name].node_microseconds / PROFILES["x86"].node_microseconds
        for runtime, cost in machines[0].costs.items():
            memory = " | ".join(f"~ {part}" for part in _memory(cost).split(" | "))
            print(
                f"| {name}, estimate | {runtime} | {memory} | - | ~ {slower * cost.start_cpu_s:.1f} | ~ {_disk(cost)} |"
            )


def _memory(cost: Cost) -> str:
    return f"{cost.idle.pss_mb:.0f} | {cost.idle.most_pss_mb:.0f} | {cost.peak_mb:.0f}"


def _disk(cost: Cost) -> str:
    return f"{cost.idle.disk_mb:.1f}"


def prepare(folder: Path) -> PublicSet:
    """Write a bundle, a public set and private rows."""
    rng = np.random.default_rng(0)
    probes = rng.integers(0, 256, (1000, 1, 28, 28), dtype=np.uint8)
    nothing = FactoryData(probes[:0], np.zeros(0, np.int64), probes)
    build(Recipe("bench", "cnn-m", pretraining=None), TASK, nothing, folder / "bundle")
    np.savez(folder / "private.npz", x=probes[:300], y=rng.integers(0, 10, 300))
    build_public_set(folder / "public", probes, TASK, seed=0)
    return load_public_set(folder / "public")


def measure(place: Place, runtime: str, public: PublicSet) -> Cost:
    """Start a device a few times, let it take part in a round, then leave it alone."""
    shutil.rmtree(place.folder / "state", ignore_errors=True)
    config = place.folder / f"{runtime}.toml"
    text = SETTINGS.format(
        device=DEVICE, federation=FEDERATION, port=place.port, runtime=runtime, tls=_tls_table(place.tls(DEVICE))
    )
    config.write_text(text)
    starts_s = []
    for _ in range(STARTS):
        device, start_s = start(config)
        starts_s.append(start_s)
        settle(device)
        stop(device)
    device, _ = start(config)
    try:
        settle(device)
        start_cpu_s, loaded_mb = used_s([device.pid]), sum(tree(device.pid).values())
        with Peak(device.pid, resident_mb, look_s=0.01) as peak:
            play_round(place, public)
        settle(device)
        supervisor_mb = tree(device.pid)[device.pid]
        idle = watch_idle(place, device.pid)
        return Cost(median(starts_s), start_cpu_s, loaded_mb, peak.mb, supervisor_mb, stop(device), idle)
    finally:
        device.kill()


def _tls_table(tls: TlsFiles | None) -> str:
    if tls is None:
        return ""
    return f'[broker.tls]\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"'


def watch_idle(place: Place, pid: int) -> Idle:
    """Look at a device that has nothing to do."""
    time.sleep(30 * place.minutes)
    before, begun_s = place.meter.traffic(DEVICE), time.monotonic()
    samples: list[tuple[float, float, float]] = []
    while time.monotonic() < begun_s + 60 * place.minutes:
        time.sleep(SAMPLE_S)
        shares = tree(pid, proportional_mb)
        supervisor = shares.pop(pid)
        samples.append((resident_mb(pid), supervisor, sum(shares.values())))
    traffic = place.meter.traffic(DEVICE) - before
    days = (time.monotonic() - begun_s) / 86_400
    rss, own, workers = zip(*samples, strict=True)
    both = [one + other for one, other in zip(own, workers, strict=True)]
    disk = sum(path.stat().st_size for path in (place.folder / "state").rglob("*") if path.is_file())
    return Idle(
        median(rss),
        median(own),
        median(workers),
        median(both),
        max(both),
        disk / 1e6,
        traffic.up / 1e6 / days,
        traffic.down / 1e6 / days,
    )


def start(config: Path) -> tuple[subprocess.Popen[str], float]:
    """Start the device and return it with the seconds until it is connected and subscribed."""
    begin_s = time.perf_counter()
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)]
    device = subprocess.Popen(command, cwd=config.parent, stderr=subprocess.PIPE, text=True)
    assert device.stderr is not None
    for line in device.stderr:
        if line.rstrip().endswith(" connected"):
            Thread(target=device.stderr.read, daemon=True).start()  # so that the pipe never fills
            return device, time.perf_counter() - begin_s
    raise RuntimeError(f"the device ended with {device.wait()}")


def stop(device: subprocess.Popen[str]) -> float:
    """Stop the device and return the seconds until its whole tree is gone."""
    pids, begin_s = list(tree(device.pid)), time.perf_counter()
    device.send_signal(signal.SIGTERM)
    device.wait(PATIENCE_S)
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in pids))
    return time.perf_counter() - begin_s


def play_round(place: Place, public: PublicSet) -> None:
    """Be the server of one round, until the device's report."""
    settings = LinkSettings(SERVER, port=place.broker.process.port, subscriptions=TOPICS.server_filters())
    link = MqttLink(replace(settings, tls=place.tls(SERVER)))
    part = Slice(public.digest, 0, public.spec.count, len(TASK.classes))
    say(link, TOPICS.round, offer(part))
    for leaf, payload in heard(link):
        if leaf == "up":
            sent = codec.decode(payload, Part)
            say(link, TOPICS.receipt(DEVICE), Receipt(ROUND, sent.kind, sent.payload_sha256, Status.STORED))
            if sent.kind is Kind.CONTRIBUTION:
                say(link, TOPICS.consensus(0), consensus(part))
        elif leaf == "report":
            assert codec.decode(payload, RoundReport).accepted
            break
    link.close()


def heard(link: MqttLink) -> Iterator[tuple[str, bytes]]:
    while True:
        event = link.events.get(timeout=PATIENCE_S)
        if isinstance(event, Arrived):
            yield parse(event.topic).leaf, event.payload


def say(link: MqttLink, topic: str, message: object) -> None:
    link.publish(topic, codec.encode(message))


def offer(part: Slice) -> RoundOffer:
    return RoundOffer(
        round=ROUND,
        remaining_s=600,
        deadline_utc_s=0,
        quorum=1,
        sampling=Sampling(bytes(16)),
        method="competence",
        temperature=2.0,
        codec=Codec.U8_SQRT,
        slice=part,
        task=TASK.digest,
        byte_budget=1 << 20,
        training=TrainingTerms(epochs=4, learning_rate=2e-3, warm_up_epochs=10),
        competence=True,
    )


def consensus(part: Slice) -> ConsensusBlock:
    logits = np.random.default_rng(1).standard_normal((part.count, part.classes))
    body = encode_body(quantise(SoftLabels.of(logits, 2.0), Codec.U8_SQRT))
    return ConsensusBlock(ROUND, sha256(body), 0, 1, part, 2.0, Codec.U8_SQRT, body)


def settle(device: subprocess.Popen[str]) -> None:
    """Wait until the tree's memory has stood still for half a second: the worker has loaded, or has ended its work."""
    last, since_s = -1.0, time.perf_counter()
    while time.perf_counter() < since_s + 0.5:
        now = sum(tree(device.pid).values())
        if abs(now - last) > 0.5 or len(tree(device.pid)) < 2:
            last, since_s = now, time.perf_counter()
        time.sleep(0.02)


def wait_until(claim: Callable[[], bool]) -> None:
    end_s = time.perf_counter() + PATIENCE_S
    while not claim():
        if time.perf_counter() > end_s:
            raise TimeoutError
        time.sleep(0.005)


if __name__ == "__main__":
    main()
