"""Buildings with a plug on their meter: will the next hour be a cheap or a dear one of the day?

    python run.py --folder FOLDER --data building-load=simbench-1.6.3-py3-none-any.whl [--seeds 5] [--jobs 2] [--write]
    python run.py --folder FOLDER --data building-load=... --short       seconds: shows that the command works
    python run.py --folder FOLDER --data building-load=... --real        by real programs over a broker

The world is that of fleet.toml. In the comparison nothing takes time; the boards of fleet.toml are played once more,
with the first seed, for what a round costs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_runtime.config import load_toml
from fleet_sim.baselines.catalogue import BASELINES as CATALOGUE
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.data.loads import third_of
from fleet_sim.metrics.estimates import estimate
from fleet_sim.partitions import Natural, PartitionTerms
from fleet_sim.scenario import Scenario
from fleet_sim.tables import (
    AXES_OF_TERMS,
    CLIENTS,
    STUDENT,
    Case,
    Form,
    Goal,
    Outcome,
    Plan,
    Table,
    costs_of_boards,
    report,
    run,
    table_of,
    under_terms,
)
from fleet_sim.worlds import Samples
from model_export.pretrain import PretrainTerms

HERE = Path(__file__).parent
OURS, FLOAT, PRIVATE = "competence", "competence, float backbones", "competence, epsilon 8"
WHOLE = "competence, every layer trains"
LOCAL = CATALOGUE["local-only"].title
AXES = {
    "training.learning_rate": (1e-3, 2e-3, 5e-3),
    "training.epochs": (2, 4),
    "training.probe_weight": (0.25, 0.5, 1.0),
}
AXES_OF_WHOLE = {"training.learning_rate": (1e-3, 2e-3, 5e-3)}
BASELINES = (
    *("local-only", "fedavg/tail", "fedavg/tail/fine-tuned", "fedavg/whole", "fedavg/whole/int4"),
    *("server-only/canaries", "centralised"),
)
ONE_PASS = {name: Knobs(epochs=1, learning_rate=1e-3, own_epochs=1, own_rate=1e-3) for name in BASELINES}
PROTOCOL = """\
none was published for this cut. 27 buildings, 2016, quarter hours; 22 are devices of up to 300 days, 5 are seen by
nobody: *accuracy* is of these, *own kind* of a fifth of each device's days that is kept from it. Days begin every six
hours, so one that is kept back shares hours with some that are not, but not the hour that is asked for: *own kind* is
on the bright side, for all methods alike. Models begin with 120 days of the factory, which *server only* has too, with
the thirds of 100 probes besides."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return the one column."""
    scenario = load_toml(HERE / "fleet.toml", Scenario).with_data_at(paths.get("building-load"))
    is_short = form == "short"
    if is_short:
        scenario = shortened(scenario)
    untimed = replace(scenario, boards=())
    return [
        Case(
            name="unseen buildings",
            world=untimed.world,
            federations={
                OURS: untimed,
                FLOAT: replace(untimed, models=replace(untimed.models, int8=False)),
                PRIVATE: under_terms(untimed, 8.0, rows=256),
                WHOLE: replace(untimed, models=replace(untimed.models, every_layer_trains=True)),
            },
            axes={} if is_short else AXES,
            own_axes={} if is_short else {PRIVATE: AXES_OF_TERMS, WHOLE: AXES_OF_WHOLE},
            tuned_as={FLOAT: OURS},
            baselines=BASELINES,
            settings=ONE_PASS if is_short else {},
            budget=1 if is_short else 6,
            judged=CLIENTS,
            goals=(
                Goal(f"{OURS}, {CLIENTS}", 0.0, "or devices need no federation", than=LOCAL),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or owners lose by it", than=LOCAL, of="own"),
                Goal(f"{WHOLE}, {STUDENT}", -1.0, "or average weights", than="FedAvg, whole model, f32"),
                Goal(f"{WHOLE}, {CLIENTS}", -1.0, "or average weights", than="FedAvg, whole model, f32", of="own"),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or int8 is too dear", than=f"{FLOAT}, {CLIENTS}"),
            ),
        )
    ]


def shortened(scenario: Scenario) -> Scenario:
    """Return a world of seconds: four buildings, two that are seen by nobody."""
    return replace(
        scenario,
        cut=replace(scenario.cut, factory=24, probes=40, canaries=18, validation=20, unseen_groups=2),
        devices=4,
        partition=PartitionTerms(natural=Natural(minimum=5, most=30)),
        rounds=2,
        models=replace(scenario.models, pretraining=PretrainTerms(epochs=2)),
        training=replace(scenario.training, epochs=1, warm_up_epochs=1),
        student=replace(scenario.student, epochs=1),
    )


def say(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return the tables, what needs no model at all, and what a round costs each kind of board."""
    boards = load_toml(HERE / "fleet.toml", Scenario).boards
    parts = [report(table, outcomes, plan)]
    for outcome in outcomes:
        timed = replace(outcome.choices[OURS].scenario, boards=boards)
        parts += [without_a_model(outcome, plan), costs_of_boards(timed, plan)]
    return "\n\n".join(parts)


def without_a_model(outcome: Outcome, plan: Plan) -> str:
    """Return how often the hour is what a rule of one line says: as the hour before it, as the same one yesterday."""
    rows = []
    for name, hour in (("as the hour before", -1), ("as the same hour of the day before", 0)):
        found = [guessed(outcome.case.world(seed).test, hour) for seed in plan.seeds]
        rows.append([name, estimate(found).in_percent()])
    return table_of(["a rule without a model", outcome.case.name], rows)


def guessed(rows: Samples, hour: int) -> float:
    """Return how often (0..1) the hour after a day lies in the third in which hour `hour` of that day lies."""
    hours = rows.values.reshape(len(rows), -1, 4).mean(2)
    return float(np.mean(third_of(hours, hours[:, hour]) == rows.labels))


TABLE = Table(
    section="table: smart-home",
    page=HERE / "README.md",
    picture=HERE / "table.png",
    command="python examples/smart-home/run.py --data building-load=PATH",
    cases=cases,
    protocol=PROTOCOL,
    has_own=True,
    say=say,
)

if __name__ == "__main__":
    run(TABLE)
