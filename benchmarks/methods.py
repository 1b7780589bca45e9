"""Every rule on the same federations of digits, honest ones and such in which four devices of ten lie.

    python benchmarks/methods.py --folder FOLDER [--seeds 2] [--rounds 10] [--rules RULE ...] [--write]

What FOLDER holds is not played again. --write puts the tables into docs/methods.md.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from publish import publish

from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.estimates import estimate
from fleet_sim.playing import Job, Played, play_all
from fleet_sim.rules import PLAYED
from fleet_sim.run import read_scenario
from fleet_sim.scenario import AttackTerms, MeasuringTerms, Scenario

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
SCENARIOS = Path(__file__).parent / "scenarios"
FIRST_SEED, CANARIES = 100, 120
HONEST = {f"alpha {alpha}": (alpha, AttackTerms()) for alpha in ("100", "0.5", "0.1")}
ATTACKED = {f"lma, alpha {alpha}": (alpha, AttackTerms(4, "lma")) for alpha in ("100", "0.1")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rules", nargs="+", choices=PLAYED, default=PLAYED, help="print their rows alone")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    scenarios = {
        (rule, column): scenario_of(rule, alpha, attack, asked.rounds)
        for columns in (HONEST, ATTACKED)
        for column, (alpha, attack) in columns.items()
        for rule in asked.rules
    }
    seeds = range(FIRST_SEED, FIRST_SEED + asked.seeds)
    jobs = [Job(scenario, seed, asked.folder) for seed in seeds for scenario in scenarios.values()]
    played = play_all(jobs, asked.jobs, lambda job, _: print(f"{job}: {job.scenario.method.name}", file=sys.stderr))
    by_place: dict[tuple[str, str], list[Played]] = {place: [] for place in scenarios}
    for (place, _), one in zip([(p, s) for s in seeds for p in scenarios], played, strict=True):
        by_place[place].append(one)
    text = report(by_place)
    print(text)
    if asked.write:
        command = f"python benchmarks/methods.py --folder FOLDER --seeds {asked.seeds} --rounds {asked.rounds} --write"
        publish("methods", command, text, PAGE)


def scenario_of(rule: str, alpha: str, attack: AttackTerms, rounds: int) -> Scenario:
    """Where devices lie, the server has canaries, whatever the rule makes of them."""
    scenario = read_scenario(SCENARIOS / f"digits-{alpha}.toml", "digits")
    return replace(
        scenario,
        cut=replace(scenario.cut, canaries=CANARIES),
        rounds=rounds,
        method=replace(scenario.method, name=rule),
        canaries=attack.devices > 0,
        attack=attack,
        measuring=MeasuringTerms(every=rounds),
    )


def report(played: Mapping[tuple[str, str], Sequence[Played]]) -> str:
    """Return both tables."""
    count = len(next(iter(played.values())))
    honest = f"Nobody lies: accuracy on test of the server's student / of the mean device, %; {count} seeds."
    attacked = "Four of ten devices lie (`fleet-sim attack`), the server has canaries: the mean honest device, %."
    return "\n\n".join(
        (
            honest,
            table(played, HONEST, (lambda result: result.student, lambda result: result.clients)),
            attacked,
            table(played, ATTACKED, (lambda result: result.clients,)),
        )
    )


def table(
    played: Mapping[tuple[str, str], Sequence[Played]],
    columns: Mapping[str, object],
    figures: Sequence[Callable[[RoundResult], float]],
) -> str:
    lines = [f"| rule | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for rule in dict.fromkeys(rule for rule, _ in played):
        cells = [
            " / ".join(estimate([figure(one.last) for one in played[rule, column]]).in_percent() for figure in figures)
            for column in columns
        ]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
