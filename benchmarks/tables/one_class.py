"""T-c: every device knows one class of ten, and nobody knows the probes' labels.

    python -m benchmarks.tables.one_class --folder FOLDER [--data mnist=PATH] [--write]

After Dell'Acqua et al. 2026 (Weighted-FD), whose table has FedMD and Selective-FD (Shao et al. 2024) beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.publish import PAGE
from benchmarks.tables.worlds import data, thinned
from broker_server.rules import RuleTerms
from broker_server.settings import MethodSettings
from broker_server.student import StudentTerms
from fd_protocol.terms import TrainingTerms
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Classes, PartitionTerms
from fleet_sim.scenario import AskTerms, MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import SHORT_SETTINGS, STUDENT, Case, Form, Goal, Table, run
from fleet_sim.worlds import Cut

NOBODY_LIES = RuleTerms(clip_rank=1)
"""With one holder of each class the second nearest is always wrong; the default of 2 expects a liar."""
SLICE = AskTerms(probes=1000)
"""A round labels, and learns from, a sixth of the probes, so that devices answer for probes whose labels they have not
just been taught. Of whole sets they repeat what they were taught; that, at as many steps in all, is a row."""
SCENARIO = Scenario(
    cut=Cut(probes=6000, canaries=200, validation=1000, test=0),
    devices=10,
    partition=PartitionTerms(classes=Classes(per_device=1)),
    rounds=36,
    ask=SLICE,
    measuring=MeasuringTerms(every=9),
    models=ModelTerms(("cnn-s",), "cnn-s", pretraining=None, every_layer_trains=True),
    method=MethodSettings(temperature=1.0, terms=NOBODY_LIES),
    training=TrainingTerms(epochs=3, learning_rate=2e-3, probe_weight=0.3, warm_up_epochs=1),
    student=StudentTerms(epochs=3, learning_rate=2e-3),
)
AXES = {"training.probe_weight": (0.1, 0.3, 1.0), "method.temperature": (1.0, 2.0)}
BASELINES = ("local-only", "server-only/canaries", "fedavg/tail", "centralised")
OURS = "competence"
PUBLISHED = {
    "FedMD (Dell'Acqua et al. 2026)": "71.56 ± 2.57",
    "Selective-FD (there)": "96.40 ± 0.06",
    "Weighted-FD, all probes labelled (there)": "98.15 ± 0.26",
}
ROWS = 600
PROTOCOL = f"""\
theirs has 100 rounds of SGD at 0.1, 64 private and 10 x 512 public rows each, after 200 steps alone, on all private
rows (about 5,400 a device), with a CNN of 21,840 parameters. Ours has {SCENARIO.rounds} rounds of Adam, each about a
sixth of the public set, {ROWS} private rows a device and `cnn-s` of 55,098 parameters; labels travel in 8 bits, 2-bit
maps of at most eight clusters tell who is competent, where Selective-FD's devices answer by a kernel estimate of their
own density. Both have 10 devices, about 6,000 unlabelled public samples and the 10,000 published test rows. ± of the
published figures are as they are printed there. Without labels a server can learn nothing by itself; with those of 200
canaries it can, and that is a row."""


def cases(paths: Mapping[str, Path], form: Form) -> Sequence[Case]:
    """Return one column: MNIST, or in the short form digits."""
    scenario, is_short = replace(SCENARIO, data=data("mnist", paths)), form == "short"
    if is_short:
        scenario = replace(
            SCENARIO,
            data=DataTerms("digits"),
            cut=Cut(probes=300, canaries=50, validation=100, test=300),
            ask=AskTerms(),
            rounds=2,
            models=replace(SCENARIO.models, families=("mlp-s",), student="mlp-s"),
        )
    case = Case(
        name=f"{scenario.data.name}, a class each",
        world=thinned(scenario, rows=ROWS),
        federations=federations(scenario),
        axes={} if is_short else AXES,
        baselines=("local-only", "fedavg/tail") if is_short else BASELINES,
        settings=SHORT_SETTINGS if is_short else {},
        budget=2 if is_short else 4,
        is_tuned_once=True,
        published=PUBLISHED,
        goals=(
            Goal(f"{OURS}, {STUDENT}", 96.4, "Selective-FD"),
            Goal(f"{OURS} + 200 canaries, {STUDENT}", 97.0, "ours"),
        ),
    )
    return [case]


def federations(scenario: Scenario) -> Mapping[str, Scenario]:
    method = scenario.method
    return {
        OURS: scenario,
        f"{OURS} + 200 canaries": replace(scenario, canaries=True),
        f"{OURS}, whole sets": replace(scenario, ask=AskTerms(), rounds=max(1, scenario.rounds // 6)),
        "selective": replace(scenario, method=replace(method, name="selective")),
        "mean of probabilities": replace(scenario, method=replace(method, name="mean-probabilities")),
    }


TABLE = Table(
    section="table: one class a device",
    page=PAGE,
    command="python -m benchmarks.tables.one_class",
    cases=cases,
    protocol=PROTOCOL,
)

if __name__ == "__main__":
    run(TABLE)
