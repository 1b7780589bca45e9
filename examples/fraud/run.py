"""Banks that look for fraud: a federation, and what else one could do, on the same worlds.

    python run.py --folder FOLDER --data card-fraud=creditcard.csv [taiwan-default=UCI.csv] [--seeds 5] [--write]
    python run.py --folder FOLDER --data card-fraud=... --short        seconds: shows that the command works
    python run.py --folder FOLDER --data card-fraud=... --real         by real programs over a broker
    python run.py --folder FOLDER                                      banks of one's own, as fleet.toml names them

The world is that of fleet.toml, for each table that is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from banks import TABLES, world, write_banks

from fd_runtime.config import load_toml
from fleet_sim.baselines.catalogue import BASELINES as CATALOGUE
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.data import DATASETS
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Drift, Natural, PartitionTerms
from fleet_sim.scenario import Scenario
from fleet_sim.tables import (
    AXES_OF_TERMS,
    CLIENTS,
    Case,
    Form,
    Goal,
    Outcome,
    Plan,
    Table,
    report_of_scores,
    run,
    under_terms,
)
from model_export.pretrain import PretrainTerms

HERE = Path(__file__).parent
OURS, FLOAT = "competence", "competence, float backbones"
MOVING, PRIVATE, DRAWN = "competence, rows come and go", "competence, epsilon 8", "rows as they come"
LOCAL = CATALOGUE["local-only"].title
AUPRC = "auprc"
PREVALENCES: Mapping[str, float | None] = {"card-fraud": 0.00172, "taiwan-default": None}
"""Of class 1 in the field, where the rows at hand hold more of it."""
DRIFT = Drift(window=0.5, cycle_rounds=10)
AXES = {
    "training.learning_rate": (2e-4, 5e-4, 1e-3, 2e-3),
    "training.epochs": (1, 4, 16),
    "training.probe_weight": (0.25, 0.5, 1.0),
}
BASELINES = (
    *("factory-model", "local-only", "fedavg/tail", "fedavg/tail/fine-tuned", "fedavg/whole", "fedavg/whole/int4"),
    *("server-only/canaries", "centralised"),
)
GRIDS = {"fedavg/whole": {"learning_rate": (1e-2, 3e-2, 1e-1), "epochs": (2, 5)}}
"""Of the usual grid, which ends at 0.2: with that, which validation rows prefer, two of five fresh seeds diverged."""
ONE_PASS = {name: Knobs(epochs=1, learning_rate=1e-3, own_epochs=1, own_rate=1e-3) for name in BASELINES}
PROTOCOL = """\
six banks, made of kinds of payments by `banks.py`; the last 30 % of the hours (of the rows, in the Taiwan table, which
has no times) are the test, of all banks for *all*, of the device's own bank for *own*; every second bank lacks four
columns, then as before. A bank's store holds 300 rows, balanced by class; in the column *rows as they come* it holds
300 drawn ones. A bank whose *rows come and go* has half of them at a time, and their mix of classes changes over ten
rounds. Legitimate rows of the test are weighed until frauds are as rare as in the full table."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return a column for each table that is named; without any, banks of one's own."""
    scenario = load_toml(HERE / "fleet.toml", Scenario)
    known = [name for name in TABLES if name in paths]
    found = {name: of_table(scenario, name, paths[name]) for name in known} or {"banks": scenario}
    asked = {name: shortened(each) if form == "short" else each for name, each in found.items()}
    first, scenario = next(iter(asked.items()))
    return [*(case_of(name, each, form) for name, each in asked.items()), without_balance(first, scenario, form)]


def of_table(scenario: Scenario, name: str, path: Path) -> Scenario:
    """Return the scenario with the banks of a published table, written where others of it were."""
    made = write_banks(name, path, HERE / "made" / f"{name}.npz")
    task = DATASETS[name].load(path).task
    if TABLES[name].moment is not None:
        task = replace(task, sample_shape=(task.sample_shape[0] - 1,))
    scores = replace(scenario.scores, prevalence=PREVALENCES[name])
    return replace(scenario, data=DataTerms(path=made, task=task), scores=scores)


def case_of(name: str, scenario: Scenario, form: Form) -> Case:
    """Return one column."""
    is_short = form == "short"
    return Case(
        name=name,
        world=partial(world, scenario),
        federations={
            OURS: scenario,
            FLOAT: replace(scenario, models=replace(scenario.models, int8=False)),
            MOVING: replace(scenario, drift=DRIFT),
            PRIVATE: under_terms(scenario, 8.0, rows=256),
        },
        axes={} if is_short else AXES,
        own_axes={} if is_short else {PRIVATE: AXES_OF_TERMS},
        tuned_as={FLOAT: OURS, MOVING: OURS},
        baselines=BASELINES,
        settings=ONE_PASS if is_short else {},
        budget=1 if is_short else 8,
        judged=CLIENTS,
        grids=GRIDS,
        chosen_by=AUPRC,
        goals=(
            Goal(f"{OURS}, {CLIENTS}", 0.0, "or banks need no federation", than=LOCAL, of=f"{AUPRC}: all"),
            Goal(f"{OURS}, {CLIENTS}", -1.0, "or a bank pays with its own", than=LOCAL, of=f"{AUPRC}: own"),
            Goal(f"{OURS}, {CLIENTS}", -1.0, "or int8 is too dear", than=f"{FLOAT}, {CLIENTS}", of=f"{AUPRC}: all"),
        ),
    )


def without_balance(name: str, scenario: Scenario, form: Form) -> Case:
    """Return the column that shows what the balance of a store is worth: its rows are drawn, as many."""
    natural = replace(scenario.partition.natural or Natural(), balanced=False)
    drawn = replace(scenario, partition=PartitionTerms(natural=natural))
    balanced = case_of(name, drawn, form)
    federations, local = {OURS: balanced.federations[OURS]}, ("local-only",)
    return replace(balanced, name=f"{name}, {DRAWN}", federations=federations, baselines=local, goals=())


def shortened(scenario: Scenario) -> Scenario:
    """Return a world of seconds."""
    return replace(
        scenario,
        cut=replace(scenario.cut, factory=40, probes=80, canaries=40, validation=60),
        partition=PartitionTerms(natural=Natural(most=60, balanced=True)),
        rounds=2,
        models=replace(scenario.models, families=("tab-s",), student="tab-s", pretraining=PretrainTerms(epochs=2)),
        training=replace(scenario.training, epochs=1, warm_up_epochs=1),
        student=replace(scenario.student, epochs=1),
    )


def say(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return what a bank asks, and how each stands beside itself alone."""
    return report_of_scores(table, outcomes, plan, LOCAL)


TABLE = Table(
    section="table: fraud",
    page=HERE / "README.md",
    picture=HERE / "table.png",
    command="python examples/fraud/run.py --data card-fraud=PATH taiwan-default=PATH",
    cases=cases,
    protocol=PROTOCOL,
    say=say,
)

if __name__ == "__main__":
    run(TABLE)
