"""T-j: where federated distillation does harm, and whether the guard says so.

    python -m benchmarks.tables.weak_spots --folder FOLDER [--data fashion-mnist=PATH] [--write]

Each column is the first one with one thing changed. The guard is `rounds.most_uncovered`: a server whose share of
uncovered probes is above it makes no consensus. Here it is off, so that one sees what it prevents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, on_few_digits, thinned
from broker_server.settings import MOST_UNCOVERED
from fleet_sim.comparison.comparing import MakeWorld
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.partitions import ImageShift
from fleet_sim.scenario import PRESETS, AttackTerms, ProbeTerms, Scenario
from fleet_sim.tables import CLIENTS, STUDENT, Case, Form, Outcome, Plan, Table, run, table_of
from fleet_sim.tables import report as usual
from fleet_sim.worlds import World

SCENARIO = replace(
    PRESETS["new-class"], cut=replace(PRESETS["new-class"].cut, new_classes=0, canaries=0), canaries=False
)
TINY_ROWS = 15
"""Below the twenty from which a device has a map."""
LACKING = (3, 5, 8)
NONE = "no weak spot"
"""The column without a weak spot; baselines have its settings in all, as nobody knows of one beforehand."""
OURS, MEAN = "competence", "mean-probabilities"
BASELINES = ("factory-model", "local-only", "server-only", "fedavg/tail", "centralised")
PROTOCOL = """\
none was published. Ten devices, MNIST (5,000 images, of which 100 are labelled at the factory), Dirichlet 0.1, 1,000
probes; settings of the preset `new-class` for federations. Probes of other pictures are Fashion-MNIST's; tiny devices
have 15 rows; cameras differ in contrast, brightness and angle; where everyone claims competence, nine of ten devices
say that they stand everywhere and answer as they think: *mean device* is then the tenth."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return a column for each weak spot, the first without any."""
    if form == "short":
        short = on_few_digits(SCENARIO)
        lacking = replace(short, probes=ProbeTerms(lacking=LACKING))
        return [_case(NONE, short, form), _case("probes lack 3, 5, 8", lacking, form)]
    foreign = ProbeTerms(source=data("fashion-mnist", paths))
    shift = ImageShift(contrast=1.0, brightness=0.3, rotation_deg=30.0)
    return [
        _case(NONE, SCENARIO, form),
        _case("probes of other pictures", replace(SCENARIO, probes=foreign), form),
        _case("probes lack 3, 5, 8", replace(SCENARIO, probes=ProbeTerms(lacking=LACKING)), form),
        _case("cameras differ", replace(SCENARIO, image_shift=shift), form),
        _case("tiny devices", SCENARIO, form, rows=TINY_ROWS),
        _case("everyone claims competence", replace(SCENARIO, attack=AttackTerms(9, "overclaim")), form),
    ]


def _case(name: str, scenario: Scenario, form: Form, rows: int = 0) -> Case:
    world: MakeWorld = thinned(scenario, rows=rows)
    if scenario.probes.source is not None:
        world = partial(_unlabelled, world)
    return Case(
        name=name,
        world=world,
        federations={OURS: scenario, MEAN: replace(scenario, method=replace(scenario.method, name=MEAN))},
        axes={},
        baselines=("factory-model",) if form == "short" else BASELINES,
        budget=2 if form == "short" else 5,
        tuned_in="" if name == NONE else NONE,
    )


def _unlabelled(make: MakeWorld, seed: int) -> World:
    """Return the same world; what foreign pictures are called means nothing here."""
    return replace(make(seed), are_probes_labelled=False)


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    return "\n\n".join([usual(table, outcomes, plan), _guard(outcomes)])


def _guard(outcomes: Sequence[Outcome]) -> str:
    """Return how much of the probes nobody covers, and whether the guard would have refused the round."""
    rows = []
    for outcome in outcomes:
        shares = [metrics.uncovered for metrics in outcome.heard[OURS]]
        refused = sum(share > MOST_UNCOVERED for share in shares)
        ours, factory = outcome.ends[f"{OURS}, {STUDENT}"], outcome.ends["factory model"]
        gain = paired([s.final for s in ours], [s.final for s in factory]).in_percent(signed=True)
        voters = mean(metrics.voters for metrics in outcome.heard[OURS])
        rows.append([outcome.case.name, estimate(shares).in_percent(), f"{refused} of {len(shares)}", f"{voters:.1f}"])
        rows[-1] += [gain, _own_gain(outcome)]
    columns = ["weak spot", "probes that nobody covers, %", f"seeds above {MOST_UNCOVERED:.0%}: refused"]
    columns += ["effective voters a probe", "student above the factory's model", "own rows above local only"]
    return table_of(columns, rows)


def _own_gain(outcome: Outcome) -> str:
    local = outcome.ends.get("local only")
    if local is None:
        return "-"
    ours = outcome.ends[f"{OURS}, {CLIENTS}"]
    return paired([s.own for s in ours], [s.own for s in local]).in_percent(signed=True)


TABLE = Table(
    section="table: weak spots",
    page=PAGE,
    command="python -m benchmarks.tables.weak_spots",
    cases=cases,
    protocol=PROTOCOL,
    has_own=True,
    say=report,
)

if __name__ == "__main__":
    run(TABLE)
