"""T-d: MotionSense, a device is a person; its own rows, and people whom no device has seen.

python -m benchmarks.tables.people --folder FOLDER --data motion-sense=PATH [--write]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, thinned
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import PRESETS, MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import CLIENTS, SHORT_SETTINGS, Case, Form, Goal, Table, run
from fleet_sim.worlds import Cut

_PRESET = PRESETS["natural"]
SCENARIO = replace(
    _PRESET,
    rounds=10,
    measuring=MeasuringTerms(every=5),
    cut=replace(_PRESET.cut, canaries=100),
    models=replace(_PRESET.models, every_layer_trains=True),
)
ROWS = 100
"""Of a person, at most: some two minutes of labels, and what two cores play within an hour."""
AXES = {
    "training.learning_rate": (1e-3, 2e-3, 5e-3),
    "training.probe_weight": (0.25, 0.5, 1.0),
}
BASELINES = (
    *("local-only", "server-only/canaries", "fedavg/tail", "fedavg/tail/fine-tuned", "fedprox/tail", "fedavgm/tail"),
    *("feddf/tail", "centralised"),
)
OURS, MEAN = "competence", "mean-probabilities"
GOALS = (
    Goal(f"{OURS}, {CLIENTS}", 77.4, "found beforehand"),
    Goal(f"{OURS}, {CLIENTS}", 0.0, "or owners need no federation", than="local only", of="own"),
    Goal(f"{OURS}, {CLIENTS}", 0.0, "or average and fine-tune", than="FedAvg, tail + fine-tuning", of="own"),
)
PROTOCOL = """\
none was published; measured beforehand with other code were own users 97.9 (local only 96.4, FedAvg + fine-tuning
96.8), unseen users 77.4 (FedAvg 81.2, centralised 82.8). 24 people, 6 activities, windows at 50 Hz; 19 are devices, 5
are seen by nobody: *accuracy* is of these, *own kind* of a fifth of each device's rows that is kept from it. Probes are
windows of the 19, without labels. The server by itself has the labels of 100 of them. Nothing is trained before: every
layer of a network trains on devices, so that the *tail* is the whole model; a device has 100 windows at most, and all
have ten rounds."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return one column; in the short form digits, that have no people."""
    scenario = replace(SCENARIO, data=data("motion-sense", paths))
    if form == "short":
        scenario = Scenario(
            data=DataTerms("digits"),
            cut=Cut(probes=100, validation=100, test=200, own_fraction=0.2),
            devices=4,
            rounds=2,
            partition=PartitionTerms(dirichlet=Dirichlet(0.5)),
            models=ModelTerms(("mlp-s",), "mlp-s"),
        )
    is_short = form == "short"
    return [
        Case(
            name="unseen people" if not is_short else "digits",
            world=thinned(scenario, rows=ROWS),
            federations={OURS: scenario, MEAN: replace(scenario, method=replace(scenario.method, name=MEAN))},
            axes={} if is_short else AXES,
            baselines=("local-only",) if is_short else BASELINES,
            settings=SHORT_SETTINGS if is_short else {},
            budget=1 if is_short else 5,
            is_tuned_once=True,
            judged=CLIENTS,
            goals=() if is_short else GOALS,
        )
    ]


TABLE = Table(
    section="table: people",
    page=PAGE,
    command="python -m benchmarks.tables.people",
    cases=cases,
    protocol=PROTOCOL,
    has_own=True,
)

if __name__ == "__main__":
    run(TABLE)
