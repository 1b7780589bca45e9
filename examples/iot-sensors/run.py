"""People with phones: a federation of three sizes of network, and what else one could do, on the same worlds.

    python run.py --folder FOLDER --data motion-sense=A_DeviceMotion_data.zip [--seeds 5] [--jobs 2] [--write]
    python run.py --folder FOLDER --data motion-sense=... --short        seconds: shows that the command works
    python run.py --folder FOLDER --data motion-sense=... --real         by real programs over a broker

The world is that of fleet.toml. In the comparison nothing takes time; the boards of fleet.toml are played once more,
with the first seed, for what a round costs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from fd_runtime.config import load_toml
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.partitions import Natural, PartitionTerms
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
    costs_of_boards,
    report,
    run,
    under_terms,
)
from model_export.pretrain import PretrainTerms

HERE = Path(__file__).parent
OURS, FLOAT, PRIVATE = "competence", "competence, float backbones", "competence, epsilon 8"
AXES = {
    "training.learning_rate": (1e-3, 2e-3, 5e-3),
    "training.epochs": (2, 4),
    "training.probe_weight": (0.25, 0.5, 1.0),
}
BASELINES = (
    *("local-only", "fedavg/tail", "fedavg/tail/fine-tuned", "fedavg/whole", "fedavg/whole/int4"),
    *("server-only/canaries", "centralised"),
)
ONE_PASS = {name: Knobs(epochs=1, learning_rate=1e-3, own_epochs=1, own_rate=1e-3) for name in BASELINES}
PROTOCOL = """\
none was published for this cut. 24 people, 6 activities, 50 Hz; 19 are devices of up to 150 labelled windows, 5 are
seen by nobody: *accuracy* is of these, *own kind* of a fifth of each device's windows that is kept from it. Windows
overlap by half, so one that is kept back may have a neighbour that is not: *own kind* is on the bright side, for all
methods alike. Models begin with 120 labelled windows of the factory, which *server only* has too, with the labels of
100 probes besides."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return the one column."""
    scenario = load_toml(HERE / "fleet.toml", Scenario).with_data_at(paths.get("motion-sense"))
    is_short = form == "short"
    if is_short:
        scenario = shortened(scenario)
    untimed = replace(scenario, boards=())
    return [
        Case(
            name="unseen people",
            world=untimed.world,
            federations={
                OURS: untimed,
                FLOAT: replace(untimed, models=replace(untimed.models, int8=False)),
                PRIVATE: under_terms(untimed, 8.0, rows=128),
            },
            axes={} if is_short else AXES,
            own_axes={} if is_short else {PRIVATE: AXES_OF_TERMS},
            tuned_as={FLOAT: OURS},
            baselines=BASELINES,
            settings=ONE_PASS if is_short else {},
            budget=1 if is_short else 6,
            judged=CLIENTS,
            goals=(
                Goal(f"{OURS}, {CLIENTS}", 0.0, "or devices need no federation", than="local only"),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or owners lose by it", than="local only", of="own"),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or int8 is too dear", than=f"{FLOAT}, {CLIENTS}"),
            ),
        )
    ]


def shortened(scenario: Scenario) -> Scenario:
    """Return a world of seconds: four people, two who are seen by nobody."""
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
    """Return the tables, and what a round costs each kind of board."""
    boards = load_toml(HERE / "fleet.toml", Scenario).boards
    timed = (replace(outcome.choices[OURS].scenario, boards=boards) for outcome in outcomes)
    return "\n\n".join([report(table, outcomes, plan), *(costs_of_boards(each, plan) for each in timed)])


TABLE = Table(
    section="table: iot-sensors",
    page=HERE / "README.md",
    picture=HERE / "table.png",
    command="python examples/iot-sensors/run.py --data motion-sense=PATH",
    cases=cases,
    protocol=PROTOCOL,
    has_own=True,
    say=say,
)

if __name__ == "__main__":
    run(TABLE)
