"""T-b: MNIST over 20 users, cut by Dirichlet 0.05, 0.1 and 1; `fashion` is the same of Fashion-MNIST.

    python -m benchmarks.tables.dirichlet --folder FOLDER [--data mnist=PATH] [--write]

After Zhu et al. 2021 (FedGen), table 1, which has FedAvg, FedProx, FD per label and FedDFusion beside FedGen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, thinned
from broker_server.settings import MethodSettings
from broker_server.student import StudentTerms
from fd_protocol.terms import TrainingTerms
from fleet_sim.baselines import catalogue
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import AskTerms, MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import SHORT_SETTINGS, STUDENT, Case, Form, Goal, Table, run
from fleet_sim.worlds import Cut

SCENARIO = Scenario(
    cut=Cut(probes=6000, canaries=200, validation=1000, test=0),
    devices=20,
    rounds=40,
    ask=AskTerms(probes=1000),
    models=ModelTerms(("mlp-l",), "mlp-l", pretraining=None, every_layer_trains=True),
    training=TrainingTerms(epochs=2, learning_rate=2e-3, probe_weight=0.5, warm_up_epochs=10),
    student=StudentTerms(epochs=3, learning_rate=2e-3),
    measuring=MeasuringTerms(every=8),
)
AXES = {
    "training.probe_weight": (0.5, 1.0, 2.0),
    "training.learning_rate": (1e-3, 2e-3),
    "method.terms.clip_rank": (1, 2),
}
AVERAGES = ("fedavg/tail", "fedprox/tail", "fedavgm/tail", "feddf/tail")
BASELINES = ("local-only", "server-only/canaries", *AVERAGES, "centralised")
LOCAL = {"learning_rate": (3e-2, 1e-1, 2e-1), "epochs": (2, 5, 10)}
GRIDS = {name: {**catalogue.BASELINES[name].axes, **LOCAL} for name in AVERAGES}
"""Without the low rates and the twenty epochs of their own grids: devices have 1,300 rows, of which two epochs are
already twice the twenty steps a round of Zhu et al."""
OURS = "competence"
LONGER = 80
"""Rounds, in a row of its own: theirs have 200."""
TUNED_AT = 0.1
ALPHAS = (TUNED_AT, 0.05, 1.0)
"""Settings are chosen at the first: nobody knows beforehand how skewed a fleet is."""
PUBLISHED: Mapping[str, Mapping[float, str]] = {
    "FedAvg (Zhu et al. 2021)": {0.05: "87.70", 0.1: "90.16", 1.0: "93.84"},
    "FedProx (there)": {0.05: "87.49", 0.1: "90.10", 1.0: "93.83"},
    "FD per label (there)": {0.05: "70.56", 0.1: "64.11", 1.0: "79.88"},
    "FedDFusion (there)": {0.05: "90.02", 0.1: "91.11", 1.0: "93.37"},
    "FedGen (there)": {0.05: "91.30", 0.1: "93.03", 1.0: "95.52"},
}
SHARE = 0.5
PROTOCOL = f"""\
theirs has half of the training rows on 20 users of which 10 take part in each of 200 rounds, 20 steps of 32 rows, and
a small CNN. Ours has {SHARE:.0%} of what 6,000 public samples and 1,000 of validation leave (26,500 of MNIST), all 20
devices in each of {SCENARIO.rounds} rounds ({LONGER} in one row), `mlp-l` with 50,890 parameters, and for federated
distillation and FedDF those 6,000 samples without labels, where FedGen and FedAvg have none; a round asks for the
labels of 1,000, in turn. Test rows are the 10,000 published ones. The server by itself has the labels of
200 of the public samples; the other rows have none of them."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return three columns, or in the short form one of digits."""
    if form == "short":
        return [short_case()]
    scenario, (tuned, *others) = replace(SCENARIO, data=data("mnist", paths)), ALPHAS
    longer, ours = f"{OURS}, {LONGER} rounds", case(scenario, "mnist", tuned)
    first = replace(
        ours,
        federations={**ours.federations, longer: replace(ours.federations[OURS], rounds=LONGER)},
        tuned_as={longer: OURS},
        goals=tuple(Goal(f"{who}, {STUDENT}", 93.0, "FedGen 93.03") for who in (OURS, longer)),
    )
    columns = zip(ALPHAS, [first, *(case(scenario, "mnist", alpha) for alpha in others)], strict=True)
    return [
        replace(column, published={who: figures[alpha] for who, figures in PUBLISHED.items()})
        for alpha, column in columns
    ]


def case(scenario: Scenario, name: str, alpha: float, *, budget: int = 6) -> Case:
    """Return a column of the data set `name`."""
    scenario = replace(scenario, partition=PartitionTerms(dirichlet=Dirichlet(alpha)))
    return Case(
        name=f"{name}, {alpha:g}",
        world=thinned(scenario, share=SHARE),
        federations={
            OURS: scenario,
            "mean of probabilities": replace(scenario, method=MethodSettings("mean-probabilities")),
        },
        axes=AXES,
        baselines=BASELINES,
        budget=budget,
        grids=GRIDS,
        tuned_in="" if alpha == TUNED_AT else f"{name}, {TUNED_AT:g}",
    )


def short_case() -> Case:
    """Return a column of digits that takes seconds."""
    scenario = replace(
        SCENARIO,
        data=DataTerms("digits"),
        cut=Cut(probes=200, validation=100, test=300),
        ask=AskTerms(),
        rounds=2,
        devices=4,
        models=replace(SCENARIO.models, families=("mlp-s",), student="mlp-s"),
    )
    column = case(scenario, "digits", TUNED_AT, budget=2)
    whole = thinned(column.federations[OURS], share=1.0)
    return replace(column, world=whole, axes={}, baselines=("fedavg/tail",), settings=SHORT_SETTINGS)


TABLE = Table(
    section="table: Dirichlet splits",
    page=PAGE,
    command="python -m benchmarks.tables.dirichlet",
    cases=cases,
    protocol=PROTOCOL,
)

if __name__ == "__main__":
    run(TABLE)
