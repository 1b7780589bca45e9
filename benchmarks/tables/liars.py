"""T-e: what is left where 40 % of the devices lie, about everything and about one class.

    python -m benchmarks.tables.liars --folder FOLDER [--data mnist=PATH] [--write]

Every attack is set against the same federation without the liars at all: their rows are gone as well, and that loss is
no defence's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, thinned
from broker_server.student import StudentTerms
from fd_protocol.terms import TrainingTerms
from fleet_sim.baselines.standings import Standing
from fleet_sim.comparison.comparing import MakeWorld
from fleet_sim.data.terms import DataTerms
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import AttackTerms, MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import CLIENTS, STUDENT, Case, Form, Outcome, Plan, Table, run, table_of
from fleet_sim.tables.saying import chosen_how, what_differs
from fleet_sim.worlds import Cut, World

SCENARIO = Scenario(
    cut=Cut(probes=1000, canaries=200, validation=1000, test=0),
    devices=15,
    rounds=10,
    measuring=MeasuringTerms(every=10),
    models=ModelTerms(("mlp-l",), "mlp-l", pretraining=None, every_layer_trains=True),
    training=TrainingTerms(epochs=4, learning_rate=2e-3, probe_weight=0.5, warm_up_epochs=10),
    student=StudentTerms(epochs=4, learning_rate=2e-3),
)
ROWS, LIARS = 600, 6
SOURCE, TARGET = 7, 1
AXES = {"training.probe_weight": (0.25, 0.5, 1.0)}
RULES: Mapping[str, tuple[str, bool]] = {
    "competence, canaries": ("competence", True),
    "competence": ("competence", False),
    "mean-probabilities": ("mean-probabilities", False),
    "median": ("median", False),
    "geometric-median": ("geometric-median", False),
    "expguard": ("expguard", False),
}
NOBODY, ABSENT = "nobody", "they are not there"
ATTACKS: Mapping[str, AttackTerms] = {
    NOBODY: AttackTerms(source=SOURCE, target=TARGET),
    **{kind: AttackTerms(LIARS, kind, source=SOURCE, target=TARGET) for kind in ("lma", "second-best", "random")},
    "label-flip": AttackTerms(LIARS, "label-flip", source=SOURCE, target=TARGET),
}
MOST: Mapping[str, Mapping[str, float]] = {
    "1": {"lma": 1.5, "second-best": 1.5, "random": 1.5},
    "0.1": {"lma": 6.0, "second-best": 11.0, "random": 7.0},
}
"""Points that an attack may cost, by alpha; below, what canaries may where nobody lies."""
FREE = 0.3
PROTOCOL = """\
no published table is like this one (Roux et al. 2025 train CIFAR with FedDistill, whose server sends weights): goals
are ours. 15 devices of at most 600 MNIST rows, `mlp-l`, 1,000 public samples of which the server knows the labels of
200; the first federation is ours where nobody lies. Attackers claim to stand everywhere, know every honest answer (lma,
second-best), and lie in all ten rounds."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return two columns for each alpha: all twenty devices, and the twelve honest ones by themselves."""
    if form == "short":
        short = replace(
            SCENARIO,
            data=DataTerms("digits"),
            cut=Cut(probes=200, canaries=50, validation=100, test=300),
            devices=5,
            rounds=2,
            models=replace(SCENARIO.models, families=("mlp-s",), student="mlp-s"),
        )
        rules = {"competence, canaries": ("competence", True), "mean-probabilities": ("mean-probabilities", False)}
        attacks = {name: replace(terms, devices=min(2, terms.devices)) for name, terms in ATTACKS.items()}
        return list(_pair(short, 1.0, rules, {n: attacks[n] for n in (NOBODY, "lma", "label-flip")}, axes={}))
    scenario = replace(SCENARIO, data=data("mnist", paths))
    return [case for alpha in (1.0, 0.1) for case in _pair(scenario, alpha, RULES, ATTACKS, axes=AXES)]


def _pair(
    scenario: Scenario,
    alpha: float,
    rules: Mapping[str, tuple[str, bool]],
    attacks: Mapping[str, AttackTerms],
    *,
    axes: Mapping[str, Sequence[float]],
) -> tuple[Case, Case]:
    scenario = replace(scenario, partition=PartitionTerms(dirichlet=Dirichlet(alpha)))
    federations = {
        f"{rule} | {attack}": replace(
            scenario, method=replace(scenario.method, name=name), canaries=has_canaries, attack=terms
        )
        for rule, (name, has_canaries) in rules.items()
        for attack, terms in attacks.items()
    }
    world = thinned(scenario, rows=ROWS)
    liars = max(terms.devices for terms in attacks.values())
    honest = replace(scenario, devices=scenario.devices - liars, attack=AttackTerms(source=SOURCE, target=TARGET))
    alone = {
        f"{rule} | {ABSENT}": replace(honest, method=replace(honest.method, name=name), canaries=has_canaries)
        for rule, (name, has_canaries) in rules.items()
    }
    common = {"axes": axes, "baselines": (), "budget": 3, "is_tuned_once": True}
    return (
        Case(name=f"{alpha:g}", world=world, federations=federations, **common),
        Case(name=f"{alpha:g}, honest alone", world=without_first(world, liars), federations=alone, **common),
    )


def without_first(world: MakeWorld, count: int) -> MakeWorld:
    """Return the same worlds without the first `count` devices: those who lie."""
    return partial(_without_first, world, count)


def _without_first(make: MakeWorld, count: int, seed: int) -> World:
    world = make(seed)
    return replace(world, private=world.private[count:], own=world.own[count:])


# Saying.


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    parts = [
        f"{len(plan.seeds)} seeds; ± are two standard errors. {chosen_how(outcomes, plan)}",
        what_differs(table),
    ]
    for everyone, alone in zip(outcomes[::2], outcomes[1::2], strict=True):
        parts += [_of_alpha(everyone, alone, kind) for kind in (STUDENT, CLIENTS)]
        parts.append(_flips(everyone, alone))
        parts.append(_costs(everyone, alone))
    return "\n\n".join([*parts, _chosen(outcomes[::2])])


def _of_alpha(everyone: Outcome, alone: Outcome, kind: str) -> str:
    return _laid_out(f"alpha {everyone.case.name}, {kind}, %", everyone, alone, kind, lambda standing: standing.final)


def _flips(everyone: Outcome, alone: Outcome) -> str:
    title = f"alpha {everyone.case.name}: share of class {SOURCE} that the student takes for {TARGET}, %"
    return _laid_out(title, everyone, alone, STUDENT, lambda standing: standing.flipped)


def _laid_out(title: str, everyone: Outcome, alone: Outcome, kind: str, ask: Callable[[Standing], float]) -> str:
    attacks = _attacks(everyone)
    rows = []
    for rule in _rules(everyone):
        ends = [everyone.ends[f"{rule} | {attack}, {kind}"] for attack in attacks]
        ends.append(alone.ends[f"{rule} | {ABSENT}, {kind}"])
        rows.append([rule, *(estimate([ask(standing) for standing in seeds]).in_percent() for seeds in ends)])
    return table_of([title, *attacks, ABSENT], rows)


def _costs(everyone: Outcome, alone: Outcome) -> str:
    """Return what attacks cost ours, beside the goals: in all, and beyond what the liars' rows were worth."""
    ours, alpha = _rules(everyone)[0], everyone.case.name
    without = alone.ends[f"{ours} | {ABSENT}, {STUDENT}"]
    calm = everyone.ends[f"{ours} | {NOBODY}, {STUDENT}"]
    mean = everyone.ends.get(f"mean-probabilities | {NOBODY}, {STUDENT}", calm)
    rows = [["nobody lies, less than the mean", _lost(mean, calm), "", *_verdict(mean, calm, FREE)]]
    for attack in _attacks(everyone)[1:]:
        lied, most = everyone.ends[f"{ours} | {attack}, {STUDENT}"], MOST.get(alpha, {}).get(attack)
        verdict = ("", "") if most is None else _verdict(calm, lied, most)
        rows.append([attack, _lost(calm, lied), _lost(without, lied), *verdict])
    columns = [f"alpha {alpha}: points that {ours} loses", "in all", "beyond the liars' rows", "goal in all", ""]
    return table_of(columns, rows)


def _lost(before: Sequence[Standing], after: Sequence[Standing]) -> str:
    return paired([s.final for s in before], [s.final for s in after]).in_percent(signed=True)


def _verdict(before: Sequence[Standing], after: Sequence[Standing], most: float) -> tuple[str, str]:
    lost = 100 * float(np.mean([b.final - a.final for b, a in zip(before, after, strict=True)]))
    return f"at most {most:g}", "holds" if lost <= most else "**missed**"


def _chosen(outcomes: Sequence[Outcome]) -> str:
    """Return the settings that all rules have, by alpha."""
    rows = [[outcome.case.name, next(iter(outcome.choices.values())).text] for outcome in outcomes]
    return table_of(["alpha", "settings chosen"], rows)


def _rules(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(name.split(" | ")[0] for name in outcome.case.federations))


def _attacks(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(name.split(" | ")[1] for name in outcome.case.federations))


TABLE = Table(
    section="table: liars",
    page=PAGE,
    command="python -m benchmarks.tables.liars",
    cases=cases,
    protocol=PROTOCOL,
    say=report,
)

if __name__ == "__main__":
    run(TABLE)
