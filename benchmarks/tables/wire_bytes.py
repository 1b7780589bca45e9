"""T-f, second half: bytes until soft labels and weights have taught as much, over sizes of models.

    python -m benchmarks.tables.wire_bytes --folder FOLDER [--write]

Needs no data but what packages carry. Bytes are packets as they lie on the wire, both ways, maps, offers and receipts
included; weights are the bare numbers, without any packet, which favours them. What codecs cost beside the entropy of
their codes: `benchmarks.tables.codecs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import flattened, thinned
from broker_server.student import StudentTerms
from fd_protocol.messages import Codec
from fd_protocol.terms import TrainingTerms
from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.baselines.costs import cost_until
from fleet_sim.baselines.standings import Standing
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import ModelTerms, Scenario
from fleet_sim.tables import SHORT_SETTINGS, STUDENT, Case, Ends, Form, Outcome, Plan, Table, run, table_of
from fleet_sim.tables.saying import accuracies, bytes_a_round, chosen_how, settings, what_differs
from fleet_sim.worlds import Cut

SCENARIO = Scenario(
    data=DataTerms("mnist-5k"),
    cut=Cut(probes=1000, validation=200, test=800),
    partition=PartitionTerms(dirichlet=Dirichlet(0.1)),
    rounds=20,
    models=ModelTerms(pretraining=None, every_layer_trains=True),
    training=TrainingTerms(epochs=4, learning_rate=2e-3, probe_weight=0.25, warm_up_epochs=10),
    student=StudentTerms(epochs=4, learning_rate=2e-3),
)
FAMILIES = ("mlp-s", "mlp-l", "tab-l")
"""With so many parameters: 12,730, 50,890 and 214,267."""
CODECS = (Codec.U8_SQRT, Codec.U4_SQRT, Codec.TOP_1)
AXES = {"training.probe_weight": (0.25, 0.5, 1.0), "training.learning_rate": (1e-3, 2e-3, 5e-3)}
BASELINES_OF_BYTES = ("fedavg/tail", "fedavg/tail/int8", "fedavg/tail/int4")
SHARE_OF_WORSE = 0.97
PROTOCOL = """\
no published table has all of this: Sattler et al. 2022 (CFD, table III) print 0.47 MB up and 0.24 MB down against
671 MB of FedAvg for VGG-16 on CIFAR-10 to 80 %, with arithmetic coding, where ours deflates. Here ten devices learn
MNIST (5,000 images, Dirichlet 0.1), all layers of one family."""

TARGET = f"""\
Bytes of a device, both ways, until {SHARE_OF_WORSE:.0%} of where the worse of `u8-sqrt` (student) and FedAvg in f32
ends. The public set, deflated, is told apart: it travels once for all rounds, or comes in the bundle."""
RULE = """\
The rule: a round of soft labels costs N C b bits each way, one of weights |theta| b'. Below are b and b' as they were
measured, and the number of parameters above which soft labels are cheaper a round."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:  # noqa: ARG001 - packages carry the data
    """Return a column for each family."""
    if form == "short":
        short = replace(SCENARIO, data=DataTerms("digits"), cut=Cut(probes=200, test=300, validation=100), rounds=3)
        return [case(replace(short, devices=4), family, is_short=True) for family in ("mlp-s", "tab-s")]
    return [case(SCENARIO, family) for family in FAMILIES]


def case(scenario: Scenario, family: str, *, is_short: bool = False) -> Case:
    models = replace(scenario.models, families=(family,), student=family)
    scenario = replace(scenario, models=models)
    world = thinned(scenario)
    return Case(
        name=family,
        world=flattened(world) if family.startswith("tab") else world,
        federations={
            codec.value: replace(scenario, method=replace(scenario.method, codec=codec))
            for codec in (CODECS[:2] if is_short else CODECS)
        },
        axes={} if is_short else AXES,
        baselines=BASELINES_OF_BYTES,
        settings=SHORT_SETTINGS if is_short else {},
        budget=2 if is_short else 6,
        is_tuned_once=True,
    )


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return what a device sends and receives until both methods have learnt as much."""
    return "\n\n".join(
        (
            f"{len(plan.seeds)} seeds. {chosen_how(outcomes, plan)}",
            what_differs(table),
            "Accuracy on test rows at the end, %, ± two standard errors:",
            accuracies(outcomes),
            TARGET,
            to_target(outcomes, plan),
            RULE,
            break_even(outcomes, plan),
            settings(outcomes),
        )
    )


# Bytes to equal accuracy.


def to_target(outcomes: Sequence[Outcome], plan: Plan) -> str:
    rows = []
    for outcome in outcomes:
        target, probes = target_of(outcome.ends), outcome.public_set_bytes
        ours = [(name, cost_until(outcome.ends[f"{name}, {STUDENT}"], target)) for name in outcome.case.federations]
        theirs = [(title, cost_until(outcome.ends[title], target)) for title in _weights()]
        for name, cost in (*ours, *theirs):
            is_ours = name in outcome.case.federations
            ratios = [_ratio(other.bytes, cost.bytes + extra) for _, other in theirs for extra in (0, probes)]
            cells = ratios if is_ours else [""] * len(ratios)
            reached = f"{cost.reached} of {len(plan.seeds)}"
            label = f"{outcome.case.name}, {100 * target:.1f} %"
            rows.append([label, name, reached, _number(cost.rounds, ".1f"), _number(cost.bytes, ",.0f"), *cells])
        rows.append([f"{outcome.case.name}", "*the public set, once*", "", "", f"{probes:,}", *[""] * 6])
    columns = ["family, target", "codec", "seeds that reach it", "rounds", "B"]
    columns += [f"{short} / ours{extra}" for short in ("f32", "int8", "4-bit") for extra in ("", ", with the set")]
    return table_of(columns, rows)


def target_of(ends: Ends) -> float:
    first, f32 = f"{CODECS[0].value}, {STUDENT}", _weights()[0]
    return SHARE_OF_WORSE * min(mean(standing.final for standing in ends[name]) for name in (first, f32))


# The rule.


def break_even(outcomes: Sequence[Outcome], plan: Plan) -> str:
    rows = []
    for outcome in outcomes:
        scenario = next(iter(outcome.case.federations.values()))
        cells = scenario.cut.probes * len(outcome.case.world(plan.seeds[0]).task.classes)
        f32 = outcome.ends[_weights()[0]]
        parameters = round(bytes_a_round(f32)[0] / 4)
        for codec in outcome.case.federations:
            ours = _a_round(outcome.ends[f"{codec}, {STUDENT}"])
            bits = [8 * _a_round(outcome.ends[title]) / 2 / parameters for title in _weights()]
            evens = [f"{8 * ours / 2 / each:,.0f}" for each in bits]
            ratios = [f"{_a_round(outcome.ends[title]) / ours:.1f}" for title in _weights()]
            rows.append([outcome.case.name, f"{parameters:,}", codec, f"{8 * ours / 2 / cells:.2f}"])
            rows[-1] += [f"{bits[1]:.2f}", f"{bits[2]:.2f}", *evens, *ratios]
    columns = ["family", "parameters", "codec", "b", "b' int8", "b' 4-bit"]
    columns += [f"break-even against {short}" for short in ("f32", "int8", "4-bit")]
    columns += [f"times cheaper a round than {short}" for short in ("f32", "int8", "4-bit")]
    return table_of(columns, rows)


def _a_round(seeds: Sequence[Standing]) -> float:
    """Return the bytes of a device in a round, both ways."""
    return sum(bytes_a_round(seeds))


def _weights() -> list[str]:
    return [BASELINES[name].title for name in BASELINES_OF_BYTES]


def _ratio(theirs: float, ours: float) -> str:
    return "-" if math.isnan(theirs) or math.isnan(ours) else f"{theirs / ours:.1f}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


TABLE = Table(
    section="table: bytes",
    page=PAGE,
    command="python -m benchmarks.tables.wire_bytes",
    cases=cases,
    protocol=PROTOCOL,
    say=report,
)

if __name__ == "__main__":
    run(TABLE)
