"""Real programs over many rounds: is what they hold in memory and on disk the same at the end as early on?

    python benchmarks/soak.py [--rounds 500] [--devices 3] [--picture FILE.png]

A federation of digits at a real broker, Mosquitto with TLS where it is installed: three architectures, one device on
LiteRT. A month of daily rounds is 30 of them, and here they follow one another at once. Every device watches a folder,
where labelled images come in between the rounds: it serves them, keeps some in a store of 200 rows, and trains on
those. The server can look back at 100 rounds. So everything that is bounded has reached its bound in the first half.

Memory is resident, disk what the files of a state folder take. `growth` compares the medians of the last fifth of
rounds and of the middle one.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gauges import resident_mb, together
from matplotlib.figure import Figure

from broker_server.records.chronicle import Chronicle
from fd_runtime.files import write_atomically
from fd_runtime.storage.store import Store
from fleet_sim.factory import equip
from fleet_sim.real.fleet import AGGREGATOR, FEDERATION, Fleet, Stage, running_fleet
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import World, digits

SEED = 0
SAMPLES = 3
"""New samples for every device and round."""
STALLED_S = 120.0
LITERT = 1
"""Which device runs LiteRT."""


@dataclass(slots=True)
class Series:
    """MB of something after some rounds."""

    rounds: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def add(self, number: int, megabytes: float) -> None:
        self.rounds.append(number)
        self.megabytes.append(megabytes)

    def fifth(self, which: int) -> float:
        """Return the median of a fifth of all rounds, the first one being 0."""
        last = self.rounds[-1]
        return median(
            mb
            for number, mb in zip(self.rounds, self.megabytes, strict=True)
            if last * which / 5 < number <= last * (which + 1) / 5
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and disk of real programs over many rounds.")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        memory, disk, minutes = soak(Path(name), asked.rounds, asked.devices)
    print(
        f"{asked.rounds} rounds, {asked.devices} devices, {minutes:.0f} minutes, {SAMPLES} new samples a round each.\n"
    )
    print("\n| MB | what | first fifth | middle | last | growth |\n|---|---|---|---|---|---|")
    for title, series in (("memory", memory), ("disk", disk)):
        for who, one in series.items():
            first, middle, last = one.fifth(0), one.fifth(2), one.fifth(4)
            print(f"| {title} | {who} | {first:.2f} | {middle:.2f} | {last:.2f} | {100 * (last / middle - 1):+.1f} % |")
    if asked.picture is not None:
        draw({"memory, MB resident": memory, "disk, MB": disk}, asked.picture)


def soak(folder: Path, rounds: int, devices: int) -> tuple[dict[str, Series], dict[str, Series], float]:
    """Play, and return memory and disk by name, and how many minutes it took."""
    world = digits(SEED, devices=devices)
    scenario = replace(PRESETS["digits"], devices=devices, rounds=rounds)
    equipment = equip(world, scenario.models, SEED, folder / "factory", tflite=True)
    stage = Stage(scenario, world, equipment, folder / "run", LITERT, further=partial(settings, folder), records=100)
    memory: dict[str, Series] = {}
    disk: dict[str, Series] = {}
    begun_s = time.monotonic()
    with running_fleet(stage, embedded_broker=False) as fleet:
        for number in ended_rounds(fleet, rounds):
            feed(folder, fleet, world, number)
            for who, megabytes in resident(fleet).items():
                memory.setdefault(who, Series()).add(number, megabytes)
            for who in (AGGREGATOR, *fleet.devices):
                state = fleet.server_store.parent if who == AGGREGATOR else fleet.checkpoint(who).parent
                disk.setdefault(who, Series()).add(number, on_disk(state))
    return memory, disk, (time.monotonic() - begun_s) / 60


def inbox(folder: Path, device: str) -> Path:
    """Return the folder that a device watches."""
    return folder / "inboxes" / device


def settings(folder: Path, device: str) -> Mapping[str, Any]:
    """Return what this device does beside rounds."""
    path = inbox(folder, device)
    path.mkdir(parents=True)
    watched = {"path": path, "labels": "folder", "done": "delete", "poll_s": 0.5, "settle_s": 0.5}
    return {
        "sources": {"inbox": {"directory": watched}},
        "store": {"megabytes": 2, "rows": 200},
        "training": {"max_c": 0.0, "flash_mb_per_day": 0.0},  # a day here is a year of rounds
    }


def ended_rounds(fleet: Fleet, rounds: int) -> Iterator[int]:
    """Yield the number of each round that has ended, as soon as that is seen; some may be missed."""
    last, last_s = 0, time.monotonic()
    while last < rounds:
        fleet.check()
        if time.monotonic() - last_s > STALLED_S:
            raise TimeoutError(f"no round ended for {STALLED_S:.0f} s; see {fleet.folder / 'logs'}")
        time.sleep(0.1)
        if not fleet.server_store.exists():
            continue
        with Store.view(fleet.server_store) as store:
            ended = [one.number for one in Chronicle(store, FEDERATION).rounds(2) if one.ended_ms]
        if (number := max(ended, default=0)) > last:
            last, last_s = number, time.monotonic()
            print(f"round {number}", file=sys.stderr)
            yield number


def feed(folder: Path, fleet: Fleet, world: World, number: int) -> None:
    """Put new images into the inbox of every device: its own rows, a little noisy."""
    rng = np.random.default_rng([SEED, number])
    for device, own in zip(fleet.devices, world.private, strict=True):
        for place in rng.integers(0, len(own), SAMPLES):
            labelled = inbox(folder, device) / world.task.classes[own.labels[place]]
            labelled.mkdir(exist_ok=True)
            noisy = own.values[place].astype(int) + rng.integers(-1, 2, own.values[place].shape)
            unfinished = labelled / f".{number}-{place}.npy"
            np.save(unfinished, noisy.clip(0, 16).astype(own.values.dtype))
            unfinished.replace(labelled / f"{number}-{place}.npy")


def resident(fleet: Fleet) -> Mapping[str, float]:
    """Return MB of each program: of a device, supervisor and worker."""
    found = {}
    for name, program in zip((AGGREGATOR, *fleet.devices), fleet.programs, strict=True):
        tree_mb = together([program.pid], resident_mb)
        found[name] = tree_mb if name == AGGREGATOR else resident_mb(program.pid)
        if name != AGGREGATOR:
            found[f"{name}, worker"] = tree_mb - found[name]
    return found


def on_disk(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # it was temporary
            continue
    return total / 1e6


def draw(panels: Mapping[str, Mapping[str, Series]], path: Path) -> None:
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (title, series) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
        for who, one in series.items():
            axes.plot(one.rounds, one.megabytes, linewidth=1.2, label=who)
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set_xlabel("round")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


if __name__ == "__main__":
    main()
