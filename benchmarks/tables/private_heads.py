"""T-k: what differential privacy costs, by epsilon and by the rows that a device has.

    python -m benchmarks.tables.private_heads --folder FOLDER [--data mnist=PATH] [--write]

Record-level DP by DP-SGD of the tail on a frozen int8 backbone, once; soft labels are then free. Without terms devices
train on their rows in every round, which none with terms may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, thinned
from broker_server.settings import MethodSettings
from broker_server.student import StudentTerms
from fd_protocol.terms import PrivacyTerms, TrainingTerms
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import Case, Form, Table, run
from fleet_sim.worlds import Cut
from model_export.pretrain import PretrainTerms

SCENARIO = Scenario(
    cut=Cut(factory=200, probes=1000, canaries=200, validation=1000, test=0),
    devices=10,
    rounds=10,
    measuring=MeasuringTerms(every=5),
    partition=PartitionTerms(dirichlet=Dirichlet(1.0)),
    models=ModelTerms(("cnn-s",), "cnn-s", PretrainTerms(epochs=60), private=True),
    method=MethodSettings("mean-probabilities"),
    training=TrainingTerms(epochs=4, learning_rate=2e-3, probe_weight=1.0, warm_up_epochs=10),
    student=StudentTerms(epochs=4, learning_rate=2e-3),
)
ROWS = (100, 500, 2500)
EPSILONS = (8.0, 4.0, 2.0, 1.0)
NO_TERMS = "no terms"
AXES_WITHOUT = {"training.learning_rate": (1e-3, 2e-3, 5e-3), "training.probe_weight": (0.5, 1.0)}
AXES = {"privacy.learning_rate": (1e-2, 2e-2, 5e-2), "privacy.clip_norm": (0.5, 1.0)}
BASELINES = ("factory-model", "local-only", "server-only", "centralised")
PROTOCOL = """\
Hoech et al. 2022 (FedAUXfdp) have DP heads on a frozen extractor, in one round, on CIFAR-10. Here ten devices have at
most that many MNIST rows each, Dirichlet 1; the factory has 200 labels. delta is 1e-5, for each row; learning rate and
clip are chosen on validation rows, and that choice is not charged to epsilon: an operator who tunes on data that are
nobody's secret pays nothing for it, another would."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return a column for each number of rows."""
    if form == "short":
        short = replace(
            SCENARIO,
            data=DataTerms("digits"),
            cut=Cut(factory=100, probes=100, canaries=50, validation=100, test=200),
            devices=3,
            rounds=2,
            models=ModelTerms(("tab-s",), "tab-s", PretrainTerms(epochs=5), private=True),
        )
        return [case(short, 100, (8.0,), form)]
    scenario = replace(SCENARIO, data=data("mnist", paths))
    return [case(scenario, rows, EPSILONS, form) for rows in ROWS]


def case(scenario: Scenario, rows: int, epsilons: Sequence[float], form: Form) -> Case:
    private = {
        f"epsilon {epsilon:g}": replace(scenario, privacy=PrivacyTerms(epsilon=epsilon, rows=rows))
        for epsilon in epsilons
    }
    return Case(
        name=f"{rows} rows",
        world=thinned(scenario, rows=rows),
        federations={NO_TERMS: scenario, **private},
        axes={} if form == "short" else AXES,
        own_axes={} if form == "short" else {NO_TERMS: AXES_WITHOUT},
        baselines=("factory-model",) if form == "short" else BASELINES,
        budget=2 if form == "short" else 3,
    )


TABLE = Table(
    section="table: private heads",
    page=PAGE,
    command="python -m benchmarks.tables.private_heads",
    cases=cases,
    protocol=PROTOCOL,
)

if __name__ == "__main__":
    run(TABLE)
