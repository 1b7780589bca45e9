"""T-h: federations on int8 backbones against the same on float ones.

    python -m benchmarks.tables.int8 --folder FOLDER [--write]

Needs no data but what packages carry. What int8 costs a model by itself is the table of `benchmarks/quantisation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import on_few_digits, thinned
from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.tables import CLIENTS, STUDENT, Case, Form, Goal, Table, run

SCENARIO = PRESETS["new-class"]
FAMILIES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "cnn": (("cnn-s", "cnn-m", "cnn-l"), "cnn-m"),
    "dw": (("dw-s", "dw-m"), "dw-m"),
}
INT8, FLOAT = "int8", "float"
MOST = 0.5
PROTOCOL = """\
none was published. The demo's world: 100 factory labels of seven digits, three digits are on devices alone, Dirichlet
0.1; backbones are quantised after the factory's training and stay frozen, tails train in float. Settings are those of
the preset `new-class`, for both."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:  # noqa: ARG001 - packages carry the data
    """Return a column for each kind of backbone."""
    if form == "short":
        short = on_few_digits(SCENARIO)
        return [case(short, "tab", (("tab-s",), "tab-s"))]
    return [case(SCENARIO, name, families) for name, families in FAMILIES.items()]


def case(scenario: Scenario, name: str, families: tuple[tuple[str, ...], str]) -> Case:
    models = replace(scenario.models, families=families[0], student=families[1])
    return Case(
        name=name,
        world=thinned(scenario),
        federations={
            INT8: replace(scenario, models=models),
            FLOAT: replace(scenario, models=replace(models, int8=False)),
        },
        axes={},
        baselines=(),
        goals=tuple(Goal(f"{INT8}, {kind}", -MOST, "ours", than=f"{FLOAT}, {kind}") for kind in (STUDENT, CLIENTS)),
    )


TABLE = Table(
    section="table: int8", page=PAGE, command="python -m benchmarks.tables.int8", cases=cases, protocol=PROTOCOL
)

if __name__ == "__main__":
    run(TABLE)
