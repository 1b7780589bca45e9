"""People who type: a federation of two sizes of network, and what else one could do, on the same worlds.

    python texts.py --speakers input.txt --plays shakespeare.zip       once: the texts
    python run.py --folder FOLDER [--seeds 5] [--jobs 2] [--write]
    python run.py --folder FOLDER --short                              seconds: shows that the command works
    python run.py --folder FOLDER --real                               by real programs over a broker

The world is that of fleet.toml. In the comparison nothing takes time; the boards of fleet.toml are not played.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from fd_runtime.config import load_toml
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.metrics.estimates import estimate
from fleet_sim.partitions import Natural, PartitionTerms
from fleet_sim.scenario import AskTerms, Scenario
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
    report,
    run,
    table_of,
    under_terms,
)
from model_export.pretrain import PretrainTerms

HERE = Path(__file__).parent
OURS, FLOAT, PRIVATE = "competence", "competence, float backbones", "competence, epsilon 8"
AXES = {"training.learning_rate": (2e-4, 5e-4, 1e-3), "training.probe_weight": (0.25, 0.5, 1.0)}
BASELINES = (
    *("factory-model", "local-only", "fedavg/tail", "fedavg/tail/fine-tuned", "fedavg/whole", "fedavg/whole/int4"),
    *("server-only/canaries", "centralised"),
)
GRIDS = {
    "local-only": {"learning_rate": (2e-4, 5e-4, 1e-3), "epochs": (1, 3)},
    "fedavg/tail": {"learning_rate": (3e-3, 1e-2, 3e-2), "epochs": (1, 3)},
    "fedavg/tail/fine-tuned": {"own_rate": (3e-4, 1e-3, 3e-3), "own_epochs": (2, 5)},
    "fedavg/whole": {"learning_rate": (3e-2, 1e-1, 2e-1), "epochs": (3, 8)},
    "server-only/canaries": {"learning_rate": (3e-4, 1e-3, 3e-3), "epochs": (1, 3)},
    "centralised": {"learning_rate": (1e-3, 2e-3, 5e-3), "epochs": (1, 3)},
}
"""All points fit the budget. 2,000 scores a row make a pass dear, and a model that can read overfits soon: fewer passes
than elsewhere."""
BUDGET = 6
ONE_PASS = {name: Knobs(epochs=1, learning_rate=1e-3, own_epochs=1, own_rate=1e-3) for name in BASELINES}
MOST_BYTES = 20_000
PROTOCOL = """\
none was published for this cut. A device is a person of whom 640 words are there, 160 more are kept from the device
(*own kind*), 12 people are seen by nobody (*unseen people*). A row is a word and the up to eight before it in its
sentence; where the word is not among the 2,000 there is no row, so these are shares of the words that can be suggested.
Rows that are kept back may have words in common with a neighbour's context, for all methods alike. Models begin with
10,000 words of public texts, which *server only* has too. No line of four words is both public and a person's."""


def cases(_paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return the one column."""
    scenario = replace(load_toml(HERE / "fleet.toml", Scenario), boards=())
    is_short = form == "short"
    if is_short:
        scenario = shortened(scenario)
    return [
        Case(
            name="unseen people",
            world=scenario.world,
            federations={
                OURS: scenario,
                FLOAT: replace(scenario, models=replace(scenario.models, int8=False)),
                PRIVATE: under_terms(scenario, 8.0, rows=640),
            },
            axes={} if is_short else AXES,
            own_axes={} if is_short else {PRIVATE: AXES_OF_TERMS},
            tuned_as={FLOAT: OURS},
            baselines=BASELINES,
            settings=ONE_PASS if is_short else {},
            budget=1 if is_short else BUDGET,
            judged=CLIENTS,
            grids=GRIDS,
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
        cut=replace(scenario.cut, factory=100, probes=40, canaries=10, validation=20, unseen_groups=2),
        devices=4,
        partition=PartitionTerms(natural=Natural(minimum=5, most=30)),
        rounds=2,
        ask=AskTerms(probes=20),
        models=replace(scenario.models, pretraining=PretrainTerms(epochs=2)),
        training=replace(scenario.training, epochs=1, warm_up_epochs=1),
        student=replace(scenario.student, epochs=1),
    )


def say(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return the tables, and whether distributions over so many words are small enough."""
    return "\n\n".join([report(table, outcomes, plan), *map(size, outcomes)])


def size(outcome: Outcome) -> str:
    """Return what a round of ours costs a device: distributions over all words, for every probe that is asked."""
    scenario = outcome.choices[OURS].scenario
    words, probes = len(scenario.data.load().task.classes), scenario.ask.probes or scenario.cut.probes
    rows = []
    for way in ("up", "down"):
        kilobytes = estimate(
            [getattr(standing, f"{way}_bytes") / 1000 for standing in outcome.ends[f"{OURS}, {STUDENT}"]]
        )
        verdict = "reached" if 1000 * kilobytes.mean <= MOST_BYTES else "**missed**"
        rows.append([f"{way}: {probes} distributions over {words:,} words", kilobytes.plainly(), verdict])
    return table_of(["a device, a round of ours", "kB", f"at most {MOST_BYTES / 1000:g}"], rows)


TABLE = Table(
    section="table: keyboard",
    page=HERE / "README.md",
    picture=HERE / "table.png",
    command="python examples/keyboard/run.py",
    cases=cases,
    protocol=PROTOCOL,
    has_own=True,
    say=say,
)

if __name__ == "__main__":
    run(TABLE)
