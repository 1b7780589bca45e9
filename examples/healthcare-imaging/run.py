"""Hospitals that read chest X-rays: a federation under privacy terms, and what else one could do, on the same worlds.

    python run.py --folder FOLDER --data pneumoniamnist=pneumoniamnist.npz [--seeds 5] [--jobs 2] [--write]
    python run.py --folder FOLDER --data pneumoniamnist=... --short        seconds: shows that the command works
    python run.py --folder FOLDER --data pneumoniamnist=... --real         by real programs over a broker

The world is that of fleet.toml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from fd_protocol.terms import PrivacyTerms
from fd_runtime.config import load_toml
from fleet_sim.baselines.catalogue import BASELINES as CATALOGUE
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.partitions import Dirichlet, PartitionTerms
from fleet_sim.scenario import Scenario
from fleet_sim.tables import AXES_OF_TERMS, CLIENTS, Case, Form, Goal, Outcome, Plan, Table, report_of_scores, run
from model_export.pretrain import PretrainTerms

HERE = Path(__file__).parent
EPSILONS = (8.0, 4.0, 2.0)
OURS, NO_TERMS, FLOAT = "epsilon 8", "no terms", "epsilon 8, float backbones"
LOCAL = CATALOGUE["local-only"].title
AUROC = "auroc"
AXES_WITHOUT = {
    "training.learning_rate": (5e-4, 1e-3, 2e-3),
    "training.epochs": (4, 8),
    "training.probe_weight": (0.25, 0.5, 1.0),
}
BASELINES = (
    *("factory-model", "local-only", "fedavg/tail", "fedavg/tail/fine-tuned", "fedavg/whole"),
    *("server-only/canaries", "centralised"),
)
ONE_PASS = {name: Knobs(epochs=1, learning_rate=1e-3, own_epochs=1, own_rate=1e-3) for name in BASELINES}
PROTOCOL = """\
4,708 + 524 images of the published training and validation parts: 20 are the
factory's, 800 are probes, eight hospitals have the rest by a Dirichlet draw of 1 for each class, each seen by a scanner
of its own. *all* is of the 624 published test images, as recorded: another hospital. *own* is of a quarter of each
hospital's images that is kept from it. Where patients have several images we do not know which, so that a patient may
be in both. Only ours has privacy terms: what baselines send, and what is pooled, says whatever it says of a patient."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return the one column."""
    scenario = load_toml(HERE / "fleet.toml", Scenario).with_data_at(paths.get("pneumoniamnist"))
    is_short = form == "short"
    if is_short:
        scenario = shortened(scenario)
    private = {f"epsilon {e:g}": replace(scenario, privacy=replace(scenario.privacy, epsilon=e)) for e in EPSILONS}
    models = replace(scenario.models, int8=False)
    return [
        Case(
            name="chest X-rays",
            world=scenario.world,
            federations={
                **private,
                NO_TERMS: replace(scenario, privacy=PrivacyTerms()),
                FLOAT: replace(private[OURS], models=models),
            },
            axes={} if is_short else AXES_OF_TERMS,
            own_axes={} if is_short else {NO_TERMS: AXES_WITHOUT},
            tuned_as={name: OURS for name in (*private, FLOAT) if name != OURS},
            baselines=BASELINES,
            settings=ONE_PASS if is_short else {},
            budget=1 if is_short else 6,
            judged=CLIENTS,
            chosen_by=AUROC,
            goals=(
                Goal(f"{OURS}, {CLIENTS}", 0.0, "or hospitals need no federation", than=LOCAL, of=f"{AUROC}: all"),
                Goal(f"{NO_TERMS}, {CLIENTS}", 0.0, "what terms cost", than=LOCAL, of=f"{AUROC}: all"),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or its own patients pay", than=LOCAL, of=f"{AUROC}: own"),
                Goal(f"{NO_TERMS}, {CLIENTS}", -1.0, "or its own patients pay", than=LOCAL, of=f"{AUROC}: own"),
                Goal(f"{OURS}, {CLIENTS}", -1.0, "or int8 is too dear", than=f"{FLOAT}, {CLIENTS}", of=f"{AUROC}: all"),
            ),
        )
    ]


def shortened(scenario: Scenario) -> Scenario:
    """Return a world of seconds: two hospitals."""
    return replace(
        scenario,
        cut=replace(scenario.cut, factory=24, probes=60, canaries=20, validation=30),
        devices=2,
        partition=PartitionTerms(dirichlet=Dirichlet(1.0, minimum=30)),
        rounds=2,
        models=replace(scenario.models, families=("cnn-s",), student="cnn-s", pretraining=PretrainTerms(epochs=2)),
        privacy=replace(scenario.privacy, steps=5),
        training=replace(scenario.training, epochs=1, warm_up_epochs=1),
        student=replace(scenario.student, epochs=1),
    )


def say(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return what radiologists ask, and how each hospital stands beside itself alone."""
    return report_of_scores(table, outcomes, plan, LOCAL)


TABLE = Table(
    section="table: healthcare-imaging",
    page=HERE / "README.md",
    picture=HERE / "table.png",
    command="python examples/healthcare-imaging/run.py --data pneumoniamnist=PATH",
    cases=cases,
    protocol=PROTOCOL,
    say=say,
)

if __name__ == "__main__":
    run(TABLE)
