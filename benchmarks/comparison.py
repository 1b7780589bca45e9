"""Every rule and every tuned baseline on one scenario: where they end, what that costs, and how far ours is ahead.

    python benchmarks/comparison.py PRESET|FILE.toml --folder FOLDER [--seeds 5] [--budget 12] [--data PATH]

The tables of `fleet-sim compare`, as Markdown. What FOLDER holds is not played again.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from fd_runtime.pages import Section
from fleet_sim.comparison.comparing import DEFAULT_METHODS, Comparison, compare
from fleet_sim.pool import pool
from fleet_sim.quiet import only_errors
from fleet_sim.reports.comparison import sections
from fleet_sim.run import read_scenario
from fleet_sim.scenario import PRESETS, Scenario

FIRST_SEED = 100


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="a preset, or a file")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=12)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    scenario = scenario_of(asked.scenario, asked.data)
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + asked.seeds))
    plan = Comparison(scenario.world, scenario, tuple(asked.methods), seeds, budget=asked.budget)
    with pool(asked.jobs) as mapped:
        compared = compare(plan, asked.folder, mapped=mapped, on_done=lambda text: print(text, file=sys.stderr))
    ends, costs, differences, *rest = sections(compared)
    print("\n\n".join(markdown(section) for section in (ends, costs, differences, rest[-1])))


def scenario_of(name: str, data: Path | None) -> Scenario:
    """Return the scenario of a preset or a file, its data at `data` if they are elsewhere."""
    scenario = read_scenario(None if name in PRESETS else Path(name), name)
    return replace(scenario, data=replace(scenario.data, path=data)) if data else scenario


def markdown(section: Section) -> str:
    """Return a table; what is ours in bold."""
    lines = [f"**{section.title}**", "", _row(section.columns), _row(["---"] * len(section.columns))]
    lines += [_row([f"**{c}**" for c in row] if row[0] in section.highlighted else row) for row in section.rows]
    return "\n".join([*lines, "", section.note] if section.note else lines)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
