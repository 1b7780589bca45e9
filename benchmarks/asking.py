"""What rounds that ask for a part of the public set cost and save: accuracy beside bytes.

    python benchmarks/asking.py [--seeds 3] [--rounds 24] [--write]

Ten digits devices (preset `digits`, Dirichlet 0.1), competence-weighted, u8-sqrt; real agents, server and codecs over
the in-memory broker. Accuracies are the mean of the last four rounds, bytes the mean over devices and all rounds:
packets as they lie on the wire, offers, maps, receipts and all.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from publish import publish

from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS, AskTerms

SCENARIO = PRESETS["digits"]
PROBES = SCENARIO.cut.probes
LAST = 4
WAYS = {
    "all, every round": AskTerms(),
    "a half in turn": AskTerms(PROBES // 2),
    "a half in turn, for 4 rounds each": AskTerms(PROBES // 2, slice_rounds=4),
    "a half in need": AskTerms(PROBES // 2, choose="need"),
    "a quarter in turn": AskTerms(PROBES // 4),
    "a quarter in need": AskTerms(PROBES // 4, choose="need"),
    "a quarter in need, for 2 rounds each": AskTerms(PROBES // 4, choose="need", slice_rounds=2),
}


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    measured = {way: [] for way in WAYS}
    for seed in range(arguments.seeds):
        for way, row in play(seed, arguments.rounds):
            measured[way].append(row)
    body = table(measured, arguments.seeds, arguments.rounds)
    print(body)
    if arguments.write:
        command = f"python benchmarks/asking.py --seeds {arguments.seeds} --rounds {arguments.rounds}"
        publish("asking", command, body)


def play(seed: int, rounds: int) -> Iterator[tuple[str, list[float]]]:
    """Yield, for each way to ask, (clients, student, kB up, kB down a device and round)."""
    world = SCENARIO.world(seed)
    with TemporaryDirectory() as folder:
        equipment = equip(world, SCENARIO.models, seed, Path(folder))
        for way, ask in WAYS.items():
            played = list(Simulation(replace(SCENARIO, rounds=rounds, ask=ask), world, equipment, seed).run())
            last = played[-LAST:]
            accuracy = [np.mean([getattr(each, name) for each in last]) for name in ("clients", "student")]
            traffic = [getattr(played[-1], name) / rounds / 1000 for name in ("sent_bytes", "received_bytes")]
            yield way, [*accuracy, *traffic]


def table(measured: dict[str, list[list[float]]], seeds: int, rounds: int) -> str:
    lines = [
        f"{PROBES} probes, {SCENARIO.devices} devices, {rounds} rounds, {seeds} seeds; mean (two standard errors).",
        "",
        "| a round asks for | mean device, last 4 rounds | student | kB up a device and round | kB down |",
        "|---|---|---|---|---|",
    ]
    for way, rows in measured.items():
        means, spread = np.mean(rows, 0), 2 * np.std(rows, 0, ddof=1) / np.sqrt(len(rows))
        accuracies = [f"{100 * mean:.1f} % ({100 * error:.1f})" for mean, error in zip(means[:2], spread, strict=False)]
        lines.append(f"| {way} | {accuracies[0]} | {accuracies[1]} | {means[2]:.2f} | {means[3]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
