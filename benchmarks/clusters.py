"""Clusters of like-minded devices (`comet`) where there are two right answers, and where there is one.

    python benchmarks/clusters.py [--seeds 3] [--rounds 10] [--write]

Ten digits devices. Two camps: every device has all classes, and half of the devices call each digit the next one.
Label skew: nobody calls anything by another name, and devices have few classes (Dirichlet 0.1) or most (0.5).
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from publish import publish

from broker_server.rules import RuleTerms
from broker_server.settings import MethodSettings
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.estimates import estimate
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.worlds import Cut, Samples, World

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
METHODS = {
    "mean-probabilities": MethodSettings("mean-probabilities"),
    "competence": MethodSettings("competence"),
    "comet, 2 clusters": MethodSettings("comet"),
    "comet, 3 clusters": MethodSettings("comet", terms=RuleTerms(clusters=3)),
}
WORLDS = {"two camps": (100.0, True), "alpha 0.5": (0.5, False), "alpha 0.1": (0.1, False)}


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    cells: dict[tuple[str, str], list[tuple[RoundResult, float]]] = {}
    for column, (alpha, has_camps) in WORLDS.items():
        scenario = scenario_of(alpha, asked.rounds)
        for seed in range(asked.seeds):
            world = scenario.world(seed)
            world = split(world) if has_camps else world
            for method, played in play(scenario, world, seed).items():
                cells.setdefault((method, column), []).append(played)
    text = table(cells, asked)
    print(text)
    if asked.write:
        command = f"python benchmarks/clusters.py --seeds {asked.seeds} --rounds {asked.rounds} --write"
        publish("clusters", command, text, PAGE)


def scenario_of(alpha: float, rounds: int) -> Scenario:
    cut = Cut(probes=600, test=400, own_fraction=0.15)
    partition = PartitionTerms(dirichlet=Dirichlet(alpha))
    return replace(PRESETS["digits"], rounds=rounds, cut=cut, partition=partition)


def split(world: World) -> World:
    """The second half of the devices call every digit the next one."""
    half, classes = len(world.private) // 2, len(world.task.classes)

    def renamed(parts: tuple[Samples, ...]) -> tuple[Samples, ...]:
        return (*parts[:half], *(Samples(part.values, (part.labels + 1) % classes) for part in parts[half:]))

    return replace(world, private=renamed(world.private), own=renamed(world.own))


def play(scenario: Scenario, world: World, seed: int) -> dict[str, tuple[RoundResult, float]]:
    """Return where each method ends, and how many clusters its last round had."""
    played = {}
    with TemporaryDirectory() as folder:
        equipment = equip(world, scenario.models, seed, Path(folder))
        for name, method in METHODS.items():
            simulation = Simulation(replace(scenario, method=method), world, equipment, seed)
            last = list(simulation.run())[-1]
            consensus = simulation.server.aggregator.state.consensus
            assert consensus is not None
            played[name] = last, consensus.metrics.get("clusters", 1.0)
    return played


def table(cells: dict[tuple[str, str], list[tuple[RoundResult, float]]], asked: argparse.Namespace) -> str:
    what = "Devices on their own kind of rows / on all classes, %, and how many clusters the last round had"
    lines = [
        f"{what}; {asked.seeds} seeds, {asked.rounds} rounds, ± are two standard errors.",
        "",
        f"| rule | {' | '.join(WORLDS)} |",
        "|---" * (len(WORLDS) + 1) + "|",
    ]
    for method in METHODS:
        row = []
        for column, (_, has_camps) in WORLDS.items():
            played = cells[method, column]
            own = estimate([result.own for result, _ in played]).in_percent()
            overall = "-" if has_camps else estimate([result.clients for result, _ in played]).in_percent()
            row.append(f"{own} / {overall} ({np.mean([clusters for _, clusters in played]):.1f})")
        lines.append(f"| {method} | {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
