"""Federations without a public set: what devices may exchange instead, and what it is worth.

    python benchmarks/prototypes.py [--seeds 5] [--rounds 10] [--write]

Ten devices share digits by Dirichlet(0.1), all of one family. In one world the factory had 100 labels of seven classes
and its backbone is frozen, int8; in the other it had none, and every layer trains. Real agents, server and codecs over
the in-memory broker; all train for as many epochs: a few a round, or all at once where a round brings nothing new.

FedProto as it is printed (Tan et al. 2022, equation 7: lambda |h(x) - C(y)|^2 pulls the features of a trainable layer h
to the prototypes) has no graph in a bundle: it is played here, in NumPy, on the same network, rows and epochs, with
prototypes of the hidden layer, and judged by the network's logits and by the nearest prototype (section 4.3).
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from publish import publish

from broker_server.settings import MethodSettings
from edge_agent.learning.local_prior import correct, log_prior
from fd_protocol.label_set import MIN_LABEL_ROWS
from fd_protocol.soft_labels import soften
from fd_runtime.fitting import FitTerms, LabelledRows, ProbeRows, fit
from fd_runtime.models.model import split_theta
from fleet_sim.baselines.factory_model import accuracy
from fleet_sim.baselines.local_only import local_only
from fleet_sim.factory import Equipment, equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab, own_shares
from fleet_sim.metrics.estimates import estimate
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS, ModelTerms, Scenario
from fleet_sim.worlds import Cut, World

F64: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = tuple[F64, npt.NDArray[np.int64]]
Figures: TypeAlias = list[float]
"""Mean device on all classes, devices on their own kind of rows, bytes up in the first round and in a later one."""

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
EPOCHS, WARM_UP, LEARNING_RATE = 4, 10, 5e-3
FROZEN = "Frozen int8 backbone (tab-m; 100 factory labels of seven classes, three are on devices alone)"
WHOLE = "Every layer trains (mlp-m, no factory labels)"


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    measured: dict[str, dict[str, list[Figures]]] = {}
    for world_name, scenario in scenarios(asked.rounds).items():
        rows = measured[world_name] = {}
        for seed in range(asked.seeds):
            for way, figures in play(scenario, seed):
                rows.setdefault(way, []).append(figures)
    text = "\n\n".join(table(name, rows, asked) for name, rows in measured.items())
    print(text)
    if asked.write:
        command = f"python benchmarks/prototypes.py --seeds {asked.seeds} --rounds {asked.rounds} --write"
        publish("prototypes", command, text, PAGE)


def scenarios(rounds: int) -> dict[str, Scenario]:
    digits = PRESETS["digits"]
    cut = Cut(probes=600, test=400, own_fraction=0.15)
    terms = replace(digits, rounds=rounds, cut=cut)
    return {
        FROZEN: replace(terms, cut=replace(cut, factory=100, new_classes=3), models=ModelTerms(("tab-m",), "tab-m")),
        WHOLE: replace(terms, models=ModelTerms(("mlp-m",), "mlp-m")),
    }


def play(scenario: Scenario, seed: int) -> Iterator[tuple[str, Figures]]:
    """Yield what each way comes to in the world of `seed`."""
    world, has_backbone = scenario.world(seed), bool(scenario.cut.factory)
    with TemporaryDirectory() as folder:
        equipment = equip(world, scenario.models, seed, Path(folder))
        lab = Lab(world, equipment.bundles)
        if has_backbone:
            yield "nothing: the factory's model", factory(scenario, lab)
        yield "nothing: each by itself", alone(scenario, lab, seed)
        yield "FD per label (`per-label`)", federated(scenario, "per-label", world, equipment, seed)
        for pull in (1.0, 10.0):
            yield from as_printed(scenario, lab, seed, pull)
        if has_backbone:
            once = replace(scenario.training, epochs=EPOCHS * scenario.rounds)
            told = federated(replace(scenario, training=once), "prototypes", world, equipment, seed)
            yield "class prototypes as rows (`prototypes`)", told
            yield "the same, devices weighed by their rows", taught(scenario, lab, seed, as_rows)
            yield "class prototypes as soft targets of own rows", taught(scenario, lab, seed, as_evidence)
        yield "600 public probes (`competence`)", federated(scenario, "competence", world, equipment, seed)


def federated(scenario: Scenario, rule: str, world: World, equipment: Equipment, seed: int) -> Figures:
    played = list(Simulation(replace(scenario, method=MethodSettings(rule)), world, equipment, seed).run())
    first, last = played[0], played[-1]
    later = (last.sent_bytes - first.sent_bytes) / (len(played) - 1)
    return [last.clients, last.own, first.sent_bytes, later]


def factory(scenario: Scenario, lab: Lab) -> Figures:
    model, (family,) = lab.factory_model(scenario.models.student), scenario.models.families
    hits = [
        lab.own_hits(family, index, lambda rows: model.logits(model.theta, rows)) for index in range(scenario.devices)
    ]
    return [model.accuracy(model.theta, lab.rows(family, lab.world.test)), own_shares(hits)[0], 0.0, 0.0]


def alone(scenario: Scenario, lab: Lab, seed: int) -> Figures:
    model, (family,) = lab.factory_model(scenario.models.student), scenario.models.families
    terms = FitTerms(WARM_UP + EPOCHS * scenario.rounds, learning_rate=LEARNING_RATE)
    rng = np.random.default_rng([seed, 4])
    thetas = [local_only(model, lab.rows(family, part), terms, rng) for part in lab.world.private]
    test = lab.rows(family, lab.world.test)
    hits = [
        lab.own_hits(family, index, lambda rows, theta=theta: model.logits(theta, rows))
        for index, theta in enumerate(thetas)
    ]
    return [float(np.mean([model.accuracy(theta, test) for theta in thetas])), own_shares(hits)[0], 0.0, 0.0]


# Other uses of class prototypes, without a wire.


Lesson: TypeAlias = Callable[[LabelledRows, F64], ProbeRows]


def taught(scenario: Scenario, lab: Lab, seed: int, lesson: Lesson) -> Figures:
    """Every device trains once on its rows and what `lesson` makes of prototypes [classes, width], NaN = unknown."""
    (family,), model = scenario.models.families, lab.factory_model(scenario.models.student)
    private, test = [lab.rows(family, part) for part in lab.world.private], lab.rows(family, lab.world.test)
    prototypes = weighed_by_rows(private)
    warm_up = FitTerms(WARM_UP, learning_rate=LEARNING_RATE)
    weight = scenario.training.probe_weight
    terms = FitTerms(EPOCHS * scenario.rounds, learning_rate=LEARNING_RATE, probe_weight=weight)
    rng, thetas = np.random.default_rng([seed, 5]), []
    for rows in private:
        session = model.session("adam")
        if len(rows.labels):
            fit(session, rows, None, warm_up, rng)
        fit(session, rows, lesson(rows, prototypes), terms, rng)
        thetas.append(session.state.theta)
    hits = [
        lab.own_hits(family, index, lambda rows, theta=theta: model.logits(theta, rows))
        for index, theta in enumerate(thetas)
    ]
    overall = float(np.mean([model.accuracy(theta, test) for theta in thetas]))
    return [overall, own_shares(hits)[0], np.nan, np.nan]


def weighed_by_rows(private: list[LabelledRows]) -> F64:
    """Equation 6 with the paper's weights: the mean over all rows of those who have enough of a class."""
    classes, width = private[0].classes, math.prod(private[0].features.shape[1:])
    sums, counts = np.zeros((classes, width)), np.zeros(classes)
    for rows in private:
        flat = rows.features.reshape(len(rows.labels), width)
        for label in np.flatnonzero(np.bincount(rows.labels, minlength=classes) >= MIN_LABEL_ROWS):
            sums[label] += flat[rows.labels == label].sum(axis=0)
            counts[label] += (rows.labels == label).sum()
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def as_rows(rows: LabelledRows, prototypes: F64) -> ProbeRows:
    """What `edge_agent.learning.prototype_ground` makes of them."""
    known = np.flatnonzero(~np.isnan(prototypes).any(axis=1))
    copies = -(-max(1, len(rows.labels)) // FitTerms().batch_rows)
    labels = np.tile(known, copies)
    weight = np.full(len(labels), max(1, len(rows.labels)) / len(labels), np.float32)
    features = np.rint(prototypes[labels]).astype(np.uint8)
    return ProbeRows(features, np.eye(rows.classes, dtype=np.float32)[labels], weight)


def as_evidence(rows: LabelledRows, prototypes: F64) -> ProbeRows:
    """softmax(-d / s) over the classes: d the squared distance to a prototype, s the median lead of the nearest."""
    distances = np.square(rows.features[:, None].astype(np.float64) - prototypes).sum(axis=2)
    ordered = np.sort(distances, axis=1)
    scale = float(np.median(ordered[:, 1] - ordered[:, 0])) if len(rows.labels) else 1.0
    return ProbeRows(rows.features, soften(np.maximum(-1e4, -np.nan_to_num(distances, nan=np.inf) / scale), 1.0))


# FedProto as it is printed.


@dataclass
class Network:
    """x W1 + b1, Relu, W2 + b2, trained by Adam on cross-entropy and the pull of prototypes."""

    parameters: list[F64]
    steps: int = 0
    moments: list[list[F64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = [each.copy() for each in self.parameters]
        self.moments = [[np.zeros_like(each) for each in self.parameters] for _ in range(2)]

    def hidden(self, x: F64) -> F64:
        return np.maximum(x @ self.parameters[0] + self.parameters[1], 0)

    def logits(self, x: F64) -> F64:
        return self.hidden(x) @ self.parameters[2] + self.parameters[3]

    def step(self, x: F64, y: npt.NDArray[np.int64], prototypes: F64, pull: float) -> None:
        """Take one step; prototypes [classes, width] are NaN where there is none."""
        h = self.hidden(x)
        powers = np.exp(self.logits(x) - self.logits(x).max(axis=1, keepdims=True))
        d_z = (powers / powers.sum(axis=1, keepdims=True) - np.eye(len(prototypes))[y]) / len(x)
        d_h = d_z @ self.parameters[2].T + pull * 2 * np.nan_to_num(h - prototypes[y]) / h.size
        d_h *= h > 0
        self._update([x.T @ d_h, d_h.sum(axis=0), h.T @ d_z, d_z.sum(axis=0)])

    def _update(self, gradients: list[F64]) -> None:
        self.steps += 1
        first, second = self.moments
        for k, gradient in enumerate(gradients):
            first[k] = 0.9 * first[k] + 0.1 * gradient
            second[k] = 0.999 * second[k] + 0.001 * gradient**2
            root = np.sqrt(second[k] / (1 - 0.999**self.steps)) + 1e-8
            self.parameters[k] -= LEARNING_RATE * first[k] / (1 - 0.9**self.steps) / root


def as_printed(scenario: Scenario, lab: Lab, seed: int, pull: float) -> Iterator[tuple[str, Figures]]:
    """Yield FedProto's two ways to answer."""
    (family,), world, rng = scenario.models.families, lab.world, np.random.default_rng([seed, 5])
    model, classes, read = lab.factory_model(family), len(world.task.classes), reader(lab, family)
    private = [(read(rows), rows.labels) for rows in (lab.rows(family, part) for part in world.private)]
    start = [each.astype(np.float64) for each in split_theta(model.theta, model.layout).values()]
    networks = [Network(start) for _ in private]
    nobody = np.full((classes, start[0].shape[1]), np.nan)
    for network, rows in zip(networks, private, strict=True):
        for batch in orders(rows, WARM_UP, rng):
            network.step(rows[0][batch], rows[1][batch], nobody, 0.0)
    for _ in range(scenario.rounds):
        prototypes = mean_prototypes(networks, private, classes)
        for network, rows in zip(networks, private, strict=True):
            for batch in orders(rows, EPOCHS, rng):
                network.step(rows[0][batch], rows[1][batch], prototypes, pull)
    prototypes = mean_prototypes(networks, private, classes)

    def nearest(network: Network) -> Callable[[F64], F64]:
        return lambda x: -np.nan_to_num(np.square(network.hidden(x)[:, None] - prototypes).sum(axis=2), nan=np.inf)

    test = lab.rows(family, world.test)
    for how, answers in (("by logits", lambda network: network.logits), ("by the nearest prototype", nearest)):
        told = [answers(network)(read(test)) for network in networks]
        overall = float(np.mean([accuracy(each.astype(np.float32), test) for each in told]))
        hits = []
        for network, own, (_, labels) in zip(networks, world.own, private, strict=True):
            rows = lab.rows(family, own)
            if len(own):
                logits = answers(network)(read(rows)).astype(np.float32)
                logits = correct(logits, log_prior(labels, classes)) if how == "by logits" else logits
                hits.extend(logits.argmax(axis=1) == rows.labels)
        yield f"FedProto as printed, lambda {pull:g}, {how}", [overall, float(np.mean(hits)), np.nan, np.nan]


def reader(lab: Lab, family: str) -> Callable[[LabelledRows], F64]:
    """Return what makes numbers of rows as the tail reads them."""
    spec = lab.bundles[family].manifest.features

    def read(rows: LabelledRows) -> F64:
        flat = rows.features.reshape(len(rows.labels), -1).astype(np.float64)
        return flat if spec is None else (flat - spec.zero_point) * spec.scale

    return read


def orders(rows: Rows, count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of each step of `count` epochs."""
    size = len(rows[1])
    for _ in range(count if size else 0):
        yield from np.array_split(rng.permutation(size), -(-size // FitTerms().batch_rows))


def mean_prototypes(networks: list[Network], private: list[Rows], classes: int) -> F64:
    """Equation 6; NaN of a class that no device has enough rows of."""
    sums, counts = np.zeros((classes, networks[0].parameters[0].shape[1])), np.zeros(classes)
    for network, (x, y) in zip(networks, private, strict=True):
        for label in np.flatnonzero(np.bincount(y, minlength=classes) >= MIN_LABEL_ROWS):
            sums[label] += network.hidden(x[y == label]).mean(axis=0)
            counts[label] += 1
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def table(name: str, rows: dict[str, list[Figures]], asked: argparse.Namespace) -> str:
    lines = [
        f"{name}; {asked.rounds} rounds, {asked.seeds} seeds, ± are two standard errors.",
        "",
        "| what devices exchange | mean device, all classes | own kind of rows | B up, first round | B up, later |",
        "|---|---|---|---|---|",
    ]
    for way, figures in rows.items():
        overall, own, first, later = zip(*figures, strict=True)
        bytes_up = [f"{np.mean(one):.0f}" if np.isfinite(one).all() and np.any(one) else "-" for one in (first, later)]
        accuracies = (estimate(list(each)).in_percent() for each in (overall, own))
        lines.append(f"| {way} | {' | '.join([*accuracies, *bytes_up])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
