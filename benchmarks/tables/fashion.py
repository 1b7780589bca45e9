"""T-b: Fashion-MNIST over 20 users, cut by Dirichlet 0.05, 0.1 and 1.

    python -m benchmarks.tables.fashion --folder FOLDER [--data fashion-mnist=PATH] [--write]

Table `dirichlet` of other pictures; nobody published figures of this cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.dirichlet import ALPHAS, SCENARIO, SHARE, case, short_case
from benchmarks.tables.worlds import data
from fleet_sim.tables import Case, Form, Table, run

BUDGET = 4
PROTOCOL = f"""\
as the table of Dirichlet splits of MNIST: {SHARE:.0%} of what 6,000 public samples and 1,000 of validation leave, 20
devices in each of {SCENARIO.rounds} rounds, `mlp-l`. The server by itself has the labels of 200 of the public samples;
the other rows have none of them."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return three columns, or in the short form one of digits."""
    if form == "short":
        return [short_case()]
    scenario = replace(SCENARIO, data=data("fashion-mnist", paths))
    return [case(scenario, "fashion-mnist", alpha, budget=BUDGET) for alpha in ALPHAS]


TABLE = Table(
    section="table: Dirichlet splits of Fashion-MNIST",
    page=PAGE,
    command="python -m benchmarks.tables.fashion",
    cases=cases,
    protocol=PROTOCOL,
)

if __name__ == "__main__":
    run(TABLE)
