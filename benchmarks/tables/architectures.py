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
TOGETHER = "together"
AXES = {"training.learning_rate": (1e-3, 2e-3), "training.probe_weight": (0.25, 0.5, 1.0)}
BASELINES = ("factory-model", "local-only", "server-only", "fedavg/tail", "centralised")
PROTOCOL = """\
of heterogeneous tables in print (Fed-DFA, FedGEMS) all are CIFAR on GPUs. Nine devices, three of each architecture, in
the world of the demo; in a federation of its own each of the nine has that architecture, so a device meets the same
rows in both. Backbones are frozen and int8; `mlp-l` has none and trains all of itself."""


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
        federations={TOGETHER: mixed, **alone},
        axes={} if form == "short" else AXES,
        baselines=("factory-model",) if form == "short" else BASELINES,
        budget=2 if form == "short" else 4,
        is_tuned_once=form == "short",
    )


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    return "\n\n".join([usual(table, outcomes, plan), *map(_by_family, outcomes)])


def _by_family(outcome: Outcome) -> str:
    """Return where devices of each architecture end among the others and among their like."""
    together = [dict(standing.families) for standing in outcome.ends[f"{TOGETHER}, {CLIENTS}"]]
    rows = []
    alone_of = {}
    for family in together[0]:
        mixed = [found[family] for found in together]
        alone_of[family] = [standing.final for standing in outcome.ends[f"{family} alone, {CLIENTS}"]]
        rows.append([family, *_compared(mixed, alone_of[family])])
    all_mixed = [mean(found.values()) for found in together]
    all_alone = [mean(each) for each in zip(*alone_of.values(), strict=True)]
    rows.append(["mean", *_compared(all_mixed, all_alone)])
    return table_of([f"{outcome.case.name}: mean device of", TOGETHER, "among its like", "points together"], rows)


def _compared(mixed: Sequence[float], alone: Sequence[float]) -> tuple[str, str, str]:
    return estimate(mixed).in_percent(), estimate(alone).in_percent(), paired(mixed, alone).in_percent(signed=True)


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
