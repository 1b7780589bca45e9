"""What a fleet of virtual devices costs: time and memory beside the number of devices, and the cost of each.

    python benchmarks/simulation.py DATA [--devices 10 100 300 1000] [--rounds 10] [--lanes 2] [--write]

DATA is an npz of MNIST: x_train [60000, 28, 28], y_train, x_test, y_test. Every device holds 50 images of its own, and
trains a whole MLP (mlp-s, mlp-m, mlp-l in turn; 12,730 to 50,890 parameters) on them and 1000 probes, four epochs a
round, with Adam: the settings of the preset `digits`. 100 devices are asked for their accuracy, after the last round.

Each fleet is played in a process of its own, in which the broker, the server and the agents live; `--lanes` more train
the models. Memory is the sum of their peaks.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from publish import publish

from fd_protocol.manifest import Preprocessing, Task
from fleet_sim.factory import equip
from fleet_sim.federation.lanes import Lanes
from fleet_sim.federation.simulation import Simulation
from fleet_sim.processes import each_in_its_own
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS, MeasuringTerms, Scenario
from fleet_sim.worlds import Samples, World

ROWS_PER_DEVICE, PROBES, ASKED = 50, 1000, 100


@dataclass(frozen=True)
class Fleet:
    data: Path
    devices: int
    rounds: int
    lanes: int


@dataclass(frozen=True)
class Cost:
    """Of one fleet, the building of its models left out. Memory: at its peak, and at the end of the first round."""

    fleet: Fleet
    wall_s: float
    cpu_s: float
    peak_mb: float
    first_round_mb: float
    accuracy: float

    @property
    def cpu_ms_each(self) -> float:
        """CPU time per device and round."""
        return 1000 * self.cpu_s / (self.fleet.devices * self.fleet.rounds)


def mnist(path: Path, devices: int) -> World:
    """The same number of images for each device, drawn alike from all classes."""
    with np.load(path, allow_pickle=False) as arrays:
        train = _samples(arrays["x_train"], arrays["y_train"])
        public = _samples(arrays["x_test"], arrays["y_test"])
    order = np.random.default_rng(0).permutation(len(train))[: ROWS_PER_DEVICE * devices]
    nobody = order[:0]
    return World(
        name="mnist",
        task=Task(tuple("0123456789"), (1, 28, 28), "uint8", Preprocessing(1 / 255)),
        factory=train.take(nobody),
        probes=public.take(np.arange(PROBES)),
        canaries=nobody,
        validation=train.take(nobody),
        test=public.take(np.arange(PROBES, 2 * PROBES)),
        private=tuple(train.take(rows) for rows in order.reshape(devices, ROWS_PER_DEVICE)),
        own=tuple(train.take(nobody) for _ in range(devices)),
    )


def _samples(images: np.ndarray, labels: np.ndarray) -> Samples:
    return Samples(images.reshape(-1, 1, 28, 28), labels.astype(np.int64))


def scenario(fleet: Fleet) -> Scenario:
    digits = PRESETS["digits"]
    return replace(
        digits,
        devices=fleet.devices,
        rounds=fleet.rounds,
        models=replace(digits.models, pretraining=None),
        measuring=MeasuringTerms(every=fleet.rounds, devices=ASKED),
    )


@only_errors()
def measure(fleet: Fleet, tell: Callable[[int], None]) -> Cost:
    """Play `fleet`; tells each round's number."""
    world, terms = mnist(fleet.data, fleet.devices), scenario(fleet)
    with tempfile.TemporaryDirectory() as folder:
        equipment = equip(world, terms.models, 0, Path(folder))
        wall_s, cpu_s, memory_mb = time.perf_counter(), time.process_time(), []
        with Lanes(equipment.public, fleet.lanes) as lanes:
            for result in Simulation(terms, world, equipment, 0, cores=lanes).run():
                memory_mb.append(_peak_mb(lanes.pids))
                tell(result.number)
    cpu_s = time.process_time() - cpu_s + _cpu_s(resource.getrusage(resource.RUSAGE_CHILDREN))
    return Cost(fleet, time.perf_counter() - wall_s, cpu_s, memory_mb[-1], memory_mb[0], result.clients)


def _cpu_s(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _peak_mb(lanes: Sequence[int]) -> float:
    """Return the sum of the peaks of this process and the lanes so far, as Linux counts them."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (os.getpid(), *lanes)]
    return sum(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1000


def table(costs: Sequence[Cost]) -> str:
    head = (
        "devices",
        "rounds",
        "wall s",
        "CPU s",
        "CPU ms per device and round",
        "peak MB",
        "after round 1",
        "accuracy",
    )
    rows = [
        (
            f"{cost.fleet.devices:,}",
            f"{cost.fleet.rounds}",
            f"{cost.wall_s:.0f}",
            f"{cost.cpu_s:.0f}",
            f"{cost.cpu_ms_each:.1f}",
            f"{cost.peak_mb:.0f}",
            f"{cost.first_round_mb:.0f}",
            f"{100 * cost.accuracy:.1f} %",
        )
        for cost in costs
    ]
    lines = [head, ("---:",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    fleets = [Fleet(arguments.data, devices, arguments.rounds, arguments.lanes) for devices in arguments.devices]
    costs = each_in_its_own(measure, fleets, 1, lambda fleet, number: print(f"{fleet.devices} devices, round {number}"))
    body = f"{os.cpu_count()} processors, {arguments.lanes} of them train.\n\n{table(costs)}"
    print(body)
    if arguments.write:
        publish("simulation", f"python benchmarks/simulation.py DATA --lanes {arguments.lanes} --write", body)


if __name__ == "__main__":
    main()
