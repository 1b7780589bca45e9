"""What a federation is measured against: baselines on one world, each as a `Standing` that a table can show.

All share the factory weights, the rows of the devices and the epoch loop of the real ones, so that a difference is one
of methods. "Own" is what a device is worth to its owner: accuracy on kept-back rows of the device itself, its logits
corrected by the local class prior, as the product does it, for every method alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeAlias, cast

import numpy as np

from fd_protocol.soft_labels import soften
from fd_runtime.fitting import FitTerms, LabelledRows
from fd_runtime.models.model import F32, Inputs
from fleet_sim.baselines.centralised import centralised
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.baselines.fedavg import AveragedRound, fedavg
from fleet_sim.baselines.local_only import local_only
from fleet_sim.baselines.server_only import SemiSupervision, server_only
from fleet_sim.baselines.weight_codec import WeightCodec
from fleet_sim.lab import Lab, own_shares
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.calibration import calibration_error
from fleet_sim.metrics.scores import Scored, ScoreTerms, scored
from fleet_sim.worlds import Samples

Totals: TypeAlias = tuple[tuple[float, float], ...]
"""After each round, what a device has sent and received since the start, in bytes (mean over devices)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a method ends.

    Attributes:
        name: for the table.
        curve: accuracy on test in 0..1 after each round; one value where there are no rounds.
        own: share of all kept-back own rows that are right, corrected by the local prior; NaN = not asked.
        up_bytes, down_bytes: a device's, a round; 0 = nothing travels.
        calibration: expected calibration error on test; NaN = not asked.
        totals: as many as the curve has rounds; () = nothing travels.
        families: mean accuracy on test of the devices of each family; () where all have one, or nobody asked.
        flipped: share of the scenario's `attack.source` that is taken for its `attack.target`; NaN = not asked.
        scores: what else the scenario asks for, in its order.
    """

    name: str
    curve: tuple[float, ...]
    own: float = float("nan")
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    calibration: float = float("nan")
    totals: Totals = ()
    families: tuple[tuple[str, float], ...] = ()
    flipped: float = float("nan")
    scores: tuple[Scored, ...] = ()

    @property
    def final(self) -> float:
        return self.curve[-1]


OF_SCORES: Mapping[str, Callable[[Scored], float]] = {
    "all": lambda scored: scored.all,
    "own": lambda scored: scored.own_mean,
    "worst": lambda scored: scored.own_worst,
}
"""On test; the mean device on its own rows; the device that is worst off."""


def asked(standing: Standing, what: str) -> float:
    """Return a figure of a standing; NaN if nobody asked.

    Args:
        standing: of a method.
        what: "all" or "own" accuracy, "calibration", or "NAME: all", "NAME: own" or "NAME: worst" of a score.

    Raises:
        KeyError: there is no such question.
    """
    plain = {"all": standing.final, "own": standing.own, "calibration": standing.calibration}
    if what in plain:
        return plain[what]
    name, _, kind = what.partition(": ")
    ask = OF_SCORES[kind]
    return next((ask(scored) for scored in standing.scores if scored.name == name), float("nan"))


@dataclass(frozen=True, slots=True)
class BaselineTerms:
    """The best settings of each baseline, found by `benchmarks/demo_federation.py --tune` on validation data.

    `fine_tuning`: what a device does with FedAvg's last average on its own rows.
    """

    local_only: FitTerms
    tail_average: FitTerms
    whole_average: FitTerms
    fine_tuning: FitTerms
    centralised: FitTerms


NEW_CLASS_TERMS = BaselineTerms(
    local_only=FitTerms(epochs=80, learning_rate=5e-3),
    tail_average=FitTerms(epochs=20, learning_rate=3e-3),
    whole_average=FitTerms(epochs=5, learning_rate=5e-3),
    fine_tuning=FitTerms(epochs=5, learning_rate=1e-3),
    centralised=FitTerms(epochs=160, learning_rate=5e-3),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One family in one world, where baselines are played.

    Attributes:
        lab: of the world.
        family: of the model that all devices have; FedAvg knows no other case.
        rounds: of what has rounds.
        seed: of the order of rows.
        averages: what FedAvg came to with these terms, for those who go on from there.
        scoring: what standings are asked besides accuracy.
    """

    lab: Lab
    family: str
    rounds: int
    seed: int
    averages: dict[FitTerms, tuple[Standing, F32]] = field(default_factory=dict, compare=False, repr=False)
    scoring: ScoreTerms = ScoreTerms()

    @property
    def factory(self) -> FactoryModel:
        return self.lab.factory_model(self.family)

    @property
    def private(self) -> list[LabelledRows]:
        return [self.rows(part) for part in self.lab.world.private]

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 4])

    def rows(self, samples: Samples) -> LabelledRows:
        return self.lab.rows(self.family, samples)

    @property
    def probes(self) -> Inputs:
        """The public samples, as a network all of whose layers train reads them."""
        return cast("Inputs", self.rows(self.lab.world.probes).features)

    def accuracy(self, theta: F32) -> float:
        """Return the accuracy on test."""
        return self.factory.accuracy(theta, self.rows(self.lab.world.test))

    def calibration(self, theta: F32) -> float:
        """Return the expected calibration error on test."""
        test = self.rows(self.lab.world.test)
        return calibration_error(soften(self.factory.logits(theta, test), 1.0), test.labels)

    def own(self, theta_of: Callable[[int], F32]) -> float:
        """Return the share of all own rows that devices get right, each with its own theta."""
        hits = [
            self.lab.own_hits(self.family, index, partial(self.factory.logits, theta_of(index)))
            for index in range(len(self.lab.world.own))
        ]
        return own_shares(hits)[0]

    def of_one(self, name: str, theta: F32) -> Standing:
        """Return where a model stands that all devices share."""
        own, scores = self.own(lambda _: theta), self._scores([theta], lambda _: theta)
        return Standing(name, (self.accuracy(theta),), own, calibration=self.calibration(theta), scores=scores)

    def of_each(self, name: str, thetas: Sequence[F32]) -> Standing:
        """Return where models stand of which device i has the i-th: the mean of them on test."""
        accuracy = float(np.mean([self.accuracy(theta) for theta in thetas]))
        calibration = float(np.mean([self.calibration(theta) for theta in thetas]))
        own, scores = self.own(lambda index: thetas[index]), self._scores(thetas, lambda index: thetas[index])
        return Standing(name, (accuracy,), own, calibration=calibration, scores=scores)

    def _scores(self, thetas: Sequence[F32], theta_of: Callable[[int], F32]) -> tuple[Scored, ...]:
        """Return the scores of models on test, and of each device's on its own rows."""
        if not self.scoring.names:
            return ()
        test = self.rows(self.lab.world.test)
        own = [
            self.lab.own_answers(self.family, index, partial(self.factory.logits, theta_of(index)))
            for index in range(len(self.lab.world.own))
        ]
        return scored(self.scoring, [(self.factory.logits(theta, test), test.labels) for theta in thetas], own)


def play_factory(bench: Bench) -> Standing:
    """The model as it left the workstation."""
    return bench.of_one("factory model", bench.factory.theta)


def play_local_only(bench: Bench, terms: FitTerms) -> Standing:
    """Every device by itself; the mean of them on test."""
    return bench.of_each("local only", [local_only(bench.factory, part, terms, bench.rng) for part in bench.private])


def play_server_only(bench: Bench, name: str, labelled: Samples, terms: SemiSupervision) -> Standing:
    """The server with the labels it has and the probes; `bench` must be of a family all of whose layers train."""
    return bench.of_one(name, server_only(bench.factory, bench.rows(labelled), bench.probes, terms, bench.rng))


def play_centralised(bench: Bench, terms: FitTerms) -> Standing:
    """All rows in one place: the bound that privacy forbids."""
    factory_rows = bench.rows(bench.lab.world.factory)
    return bench.of_one("centralised", centralised(bench.factory, [factory_rows, *bench.private], terms, bench.rng))


def play_fedavg(
    bench: Bench, name: str, terms: FitTerms, fine_tuning: FitTerms, codec: WeightCodec = "f32"
) -> list[Standing]:
    """FedAvg, and FedAvg with every device's own fine-tuning of the last average."""
    shared, theta = play_weights(
        bench, f"{name}, {codec}", fedavg(bench.factory, bench.private, terms, bench.rng, codec=codec)
    )
    if codec != "f32":
        return [shared]
    return [shared, fine_tuned(bench, f"{name} + fine-tuning", shared, theta, fine_tuning)]


def play_weights(bench: Bench, name: str, rounds: Iterator[AveragedRound]) -> tuple[Standing, F32]:
    """Play a method whose weights travel to the last round; return where it stands, and its last theta."""
    played = list(islice(rounds, bench.rounds))
    up_bytes, down_bytes = ([getattr(step, way) for step in played] for way in ("up_bytes", "down_bytes"))
    standing = replace(
        bench.of_one(name, played[-1].theta),
        curve=tuple(bench.accuracy(step.theta) for step in played),
        up_bytes=float(np.mean(up_bytes)),
        down_bytes=float(np.mean(down_bytes)),
        totals=tuple(zip(np.cumsum(up_bytes).tolist(), np.cumsum(down_bytes).tolist(), strict=True)),
    )
    return standing, played[-1].theta


def fine_tuned(bench: Bench, name: str, shared: Standing, theta: F32, terms: FitTerms) -> Standing:
    """Return where devices stand that fine-tune `theta`, the end of `shared`, on their own rows."""
    start = replace(bench.factory, theta=theta)
    tuned = bench.of_each(name, [local_only(start, part, terms, bench.rng) for part in bench.private])
    return replace(tuned, up_bytes=shared.up_bytes, down_bytes=shared.down_bytes, totals=shared.totals[-1:])


def standing_of(name: str, results: Sequence[RoundResult]) -> Standing:
    """Return the mean client of a simulated federation."""
    last = results[-1]
    rounds = len(results)
    curve = tuple(result.clients for result in results)
    totals = tuple((result.sent_bytes, result.received_bytes) for result in results)
    return Standing(name, curve, last.own, last.sent_bytes / rounds, last.received_bytes / rounds, totals=totals)
