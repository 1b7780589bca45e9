"""T-g: three architectures in one federation against each of them in a federation of its own.

    python -m benchmarks.tables.architectures --folder FOLDER [--write]

Needs no data but what packages carry. Weights of two architectures cannot be averaged: FedAvg has the student's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import on_few_digits, thinned
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.tables import CLIENTS, Case, Form, Outcome, Plan, Table, run, table_of
from fleet_sim.tables import report as usual

SCENARIO = replace(PRESETS["new-class"], devices=9)
MIXES: Mapping[str, tuple[str, ...]] = {
    "three sizes": ("cnn-s", "cnn-m", "cnn-l"),
    "three kinds": ("cnn-m", "dw-s", "mlp-l"),
}
TOGETHER, CANARIES = "together", "together, canaries"
AXES = {"training.learning_rate": (1e-3, 2e-3), "training.probe_weight": (0.25, 0.5, 1.0)}
BASELINES = ("factory-model", "local-only", "server-only", "fedavg/tail", "centralised")
PROTOCOL = """\
of heterogeneous tables in print (Fed-DFA, FedGEMS) all are CIFAR on GPUs. Nine devices, three of each architecture, in
the world of the demo; in a federation of its own each of the nine has that architecture, so a device meets the same
rows in both. Backbones are frozen and int8; `mlp-l` has none and trains all of itself. With canaries the server knows
the labels of 200 probes and trusts a device, class by class, as far as it was right there; the other federations have
none, and *server only* has the 100 labels of the factory alone."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:  # noqa: ARG001 - packages carry the data
    """Return a column for each mix."""
    if form == "short":
        short = on_few_digits(SCENARIO)
        return [case(short, "two kinds", ("tab-s", "mlp-s"), form)]
    return [case(SCENARIO, name, families, form) for name, families in MIXES.items()]


def case(scenario: Scenario, name: str, families: tuple[str, ...], form: Form) -> Case:
    mixed = replace(scenario, models=replace(scenario.models, families=families, student=families[0]))
    alone = {
        f"{family} alone": replace(scenario, models=replace(scenario.models, families=(family,), student=family))
        for family in families
    }
    return Case(
        name=name,
        world=thinned(scenario),
        federations={TOGETHER: mixed, CANARIES: replace(mixed, canaries=True), **alone},
        axes={} if form == "short" else AXES,
        baselines=("factory-model",) if form == "short" else BASELINES,
        budget=2 if form == "short" else 4,
        is_tuned_once=form == "short",
    )


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    return "\n\n".join([usual(table, outcomes, plan), *map(_by_family, outcomes)])


def _by_family(outcome: Outcome) -> str:
    """Return where devices of each architecture end among the others and among their like."""
    both = (TOGETHER, CANARIES)
    mixed = {name: [dict(seed.families) for seed in outcome.ends[f"{name}, {CLIENTS}"]] for name in both}
    families = list(mixed[TOGETHER][0])
    alone = {family: [seed.final for seed in outcome.ends[f"{family} alone, {CLIENTS}"]] for family in families}
    rows = [
        [family, *_compared(alone[family], [[seed[family] for seed in seeds] for seeds in mixed.values()])]
        for family in families
    ]
    means = [[mean(seed.values()) for seed in seeds] for seeds in mixed.values()]
    rows.append(["mean", *_compared([mean(each) for each in zip(*alone.values(), strict=True)], means)])
    columns = [f"{outcome.case.name}: mean device of", "among its like"]
    return table_of([*columns, *(cell for name in mixed for cell in (name, "points more"))], rows)


def _compared(alone: Sequence[float], mixed: Sequence[Sequence[float]]) -> list[str]:
    cells = [estimate(alone).in_percent()]
    for each in mixed:
        cells += [estimate(each).in_percent(), paired(each, alone).in_percent(signed=True)]
    return cells


TABLE = Table(
    section="table: architectures",
    page=PAGE,
    command="python -m benchmarks.tables.architectures",
    cases=cases,
    protocol=PROTOCOL,
    say=report,
)

if __name__ == "__main__":
    run(TABLE)
