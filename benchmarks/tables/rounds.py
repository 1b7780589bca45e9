"""T-i: rounds until a target, and 30 % of the devices offline in every round.

    python -m benchmarks.tables.rounds --folder FOLDER [--write]

Needs no data but what packages carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import thinned
from fleet_sim.baselines.costs import best_end, cost_until, has_rounds
from fleet_sim.baselines.standings import Standing
from fleet_sim.boards.terms import Attendance
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import PRESETS, ModelTerms, Scenario
from fleet_sim.tables import CLIENTS, SHORT_SETTINGS, STUDENT, Case, Form, Goal, Outcome, Plan, Table, run, table_of
from fleet_sim.tables import report as usual
from fleet_sim.worlds import Cut

DIGITS = replace(
    PRESETS["digits"],
    cut=Cut(probes=600, canaries=100, validation=200, test=400),
    models=ModelTerms(("mlp-l",), "mlp-l"),
)
MNIST = replace(
    DIGITS,
    data=DataTerms("mnist-5k"),
    cut=Cut(probes=1000, canaries=100, validation=300, test=800),
    models=ModelTerms(("mlp-l",), "mlp-l", pretraining=None, every_layer_trains=True),
)
OURS, OFFLINE = "competence", "competence, 30 % offline"
AXES = {
    "training.probe_weight": (0.25, 0.5, 1.0),
    "training.epochs": (4, 8),
    "training.learning_rate": (2e-3, 5e-3),
}
BASELINES = ("fedavg/tail", "fedprox/tail", "fedavgm/tail", "feddf/tail", "server-only/canaries")
SHARES = (0.8, 0.9, 0.95)
MOST_OF_ROUNDS, OFFLINE_COSTS = 0.25, 1.0
PROTOCOL = f"""\
Lin et al. 2020 (FedDF, table 1) print rounds to 75 % on CIFAR-10 at alpha 0.1: FedAvg with one local epoch 445 ± 8,
FedProx with twenty 235 ± 41, FedDF with twenty 51 ± 4; here it is digits and MNIST (5,000 images), `mlp-l` on every
device, {DIGITS.rounds} rounds, and every method has as many local epochs as its tuning chose. Who is offline is drawn
anew for each round; absent devices count with what they said last. FedAvg has all devices in all rounds. Ours needs a
public set, FedAvg none."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:  # noqa: ARG001 - packages carry the data
    """Return digits and MNIST at two skews."""
    if form == "short":
        return [case(replace(DIGITS, rounds=3, devices=4), "digits", 0.1, form)]
    return [
        case(scenario, name, alpha, form)
        for name, scenario in (("digits", DIGITS), ("mnist-5k", MNIST))
        for alpha in (0.1, 0.5)
    ]


def case(scenario: Scenario, name: str, alpha: float, form: Form) -> Case:
    scenario = replace(scenario, partition=PartitionTerms(dirichlet=Dirichlet(alpha)))
    return Case(
        name=f"{name}, {alpha:g}",
        world=thinned(scenario),
        federations={OURS: scenario, OFFLINE: replace(scenario, attendance=Attendance(offline=0.3))},
        axes={} if form == "short" else AXES,
        baselines=("fedavg/tail",) if form == "short" else BASELINES,
        settings=SHORT_SETTINGS if form == "short" else {},
        budget=2 if form == "short" else 6,
        tuned_in="mnist-5k, 0.1" if name == "mnist-5k" and alpha != 0.1 else "",
        is_tuned_once=True,
        goals=tuple(
            Goal(f"{OFFLINE}, {kind}", -OFFLINE_COSTS, "ours", than=f"{OURS}, {kind}") for kind in (STUDENT, CLIENTS)
        ),
    )


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    how = (
        "Rounds until a share of where the best of those with rounds ends, mean over the seeds that reach it (how many,"
    )
    goal = f"{how} if not all {len(plan.seeds)}). The goal is {MOST_OF_ROUNDS:.0%} of FedAvg's."
    return "\n\n".join([usual(table, outcomes, plan), goal, *map(_to_targets, outcomes)])


def _to_targets(outcome: Outcome) -> str:
    targets = [share * best_end(outcome.ends) for share in SHARES]
    rows = [
        [name, *(_rounds(seeds, target) for target in targets)]
        for name, seeds in outcome.ends.items()
        if has_rounds(seeds)
    ]
    return table_of([outcome.case.name, *(f"to {100 * target:.1f} %" for target in targets)], rows)


def _rounds(seeds: Sequence[Standing], target: float) -> str:
    cost = cost_until(seeds, target)
    if not cost.reached:
        return "never"
    return f"{cost.rounds:.1f}" + (f" ({cost.reached})" if cost.reached < len(seeds) else "")


TABLE = Table(
    section="table: rounds",
    page=PAGE,
    command="python -m benchmarks.tables.rounds",
    cases=cases,
    protocol=PROTOCOL,
    say=report,
)

if __name__ == "__main__":
    run(TABLE)
