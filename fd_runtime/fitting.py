"""The one epoch loop: private rows and probe rows, shuffled together, one train step after the other.

Joint on purpose: digesting the consensus first and revisiting private data afterwards forgets either one (DESIGN
section 5.7). The loop decides nothing about acceptance; whoever calls it compares before and after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise

import numpy as np

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.models.model import F32, I64, Batch, Features, TrainSession


class TrainingDivergedError(FedistillError):
    """The loss exploded or is no number; the session has the state that it had before."""

    def __init__(self, step: int, loss: float) -> None:
        self.step, self.loss = step, loss
        super().__init__(f"training diverged at step {step}: loss {loss:.4g}")


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Private rows: features [n, ...] as the tail reads them, labels int64 [n] below `classes`."""

    features: Features
    labels: I64
    classes: int

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise InvalidValueError(f"{len(self.features)} rows but {len(self.labels)} labels")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < self.classes:
            raise InvalidValueError(f"labels must be 0 to {self.classes - 1}")


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """Public rows: features [n, ...], targets float32 [n, classes] at the terms' temperature, a weight each or None."""

    features: Features
    targets: F32
    weight: F32 | None = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.targets):
            raise InvalidValueError(f"{len(self.features)} probes but {len(self.targets)} targets")


@dataclass(frozen=True, slots=True)
class FitTerms:
    """How to train.

    Attributes:
        epochs: passes over private and probe rows together.
        batch_rows: most rows of a step; an epoch is cut into steps of nearly equal size.
        learning_rate: of every step.
        temperature: T of the distillation term, at which the targets were made.
        probe_weight: weight of a probe row; a private row has 1.
        prox: pull towards the theta that the fit started from.
        max_norm: clip of the gradient's norm; 0 = off.
        explosion: the loss may grow to this many times max(first loss, log classes).
    """

    epochs: int = 1
    batch_rows: int = 64
    learning_rate: float = 5e-3
    temperature: float = 2.0
    probe_weight: float = 1.0
    prox: float = 0.0
    max_norm: float = 0.0
    explosion: float = 20.0

    def __post_init__(self) -> None:
        positive = (self.batch_rows, self.learning_rate, self.temperature, self.explosion)
        if self.epochs < 0 or min(positive) <= 0 or min(self.probe_weight, self.prox, self.max_norm) < 0:
            raise InvalidValueError(f"terms out of range: {self}")


@dataclass(frozen=True, slots=True)
class FitProgress:
    """After a step: how many of `total_steps` are done, the last loss, and the losses of all, a list that grows.

    With these losses and the session's state of the same moment a fit can be taken up again (`fit(..., losses=...)`).
    """

    steps: int
    total_steps: int
    loss: float
    losses: Sequence[float] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did: steps taken, mean loss of each epoch (a broken-off one included), whether it ran to its end."""

    steps: int
    epoch_losses: tuple[float, ...]
    is_complete: bool


def fit(
    session: TrainSession,
    private: LabelledRows | None,
    probes: ProbeRows | None,
    terms: FitTerms,
    rng: np.random.Generator,
    *,
    should_stop: Callable[[FitProgress], bool] = lambda _: False,
    reference: F32 | None = None,
    losses: Sequence[float] = (),
) -> FitReport:
    """Train on both kinds of rows jointly; either may be None.

    A fit that was broken off goes on to the same theta, bit for bit, where everything is as it was at its beginning,
    the generator too, but for the session's state, which is that after the steps of `losses`.

    Args:
        session: its state moves on; optimizer slots go on from where they are.
        private: rows for the cross-entropy.
        probes: rows for the distillation.
        terms: how to train.
        rng: draws the order of rows; the same generator state gives the same theta.
        should_stop: asked after every step; True ends the fit there.
        reference: theta that `terms.prox` pulls to; None: the one that the session has.
        losses: of the steps that were taken before.

    Raises:
        InvalidValueError: no rows at all, the two kinds do not fit together, or so many steps there are not.
        TrainingDivergedError: the session's state is the one it had before.
    """
    rows = _joined(private, probes, terms.probe_weight)
    begin = session.state
    if terms.prox and reference is None:
        reference = begin.theta
    try:
        return _train(session, rows, terms, rng, should_stop, reference=reference, losses=list(losses))
    except TrainingDivergedError:
        session.state = begin
        raise


def _train(
    session: TrainSession,
    rows: Batch,
    terms: FitTerms,
    rng: np.random.Generator,
    should_stop: Callable[[FitProgress], bool],
    *,
    reference: F32 | None,
    losses: list[float],
) -> FitReport:
    steps_per_epoch = math.ceil(len(rows.features) / terms.batch_rows)
    total_steps = terms.epochs * steps_per_epoch
    if len(losses) > total_steps:
        raise InvalidValueError(f"{len(losses)} steps were taken before, and there are {total_steps}")
    for batch in islice(_batches(rows, terms.epochs, steps_per_epoch, rng), len(losses), None):
        loss = session.run(
            batch,
            learning_rate=terms.learning_rate,
            temperature=terms.temperature,
            reference=reference if terms.prox else None,
            prox=terms.prox,
            max_norm=terms.max_norm,
        )
        losses.append(loss)
        # Not "loss > limit": no comparison with NaN is true.
        if not loss < terms.explosion * max(losses[0], math.log(rows.targets.shape[1])):
            raise TrainingDivergedError(len(losses), loss)
        if should_stop(FitProgress(len(losses), total_steps, loss, losses)):
            break
    if not np.isfinite(session.state.theta).all():
        raise TrainingDivergedError(len(losses), losses[-1])
    epochs = [losses[start : start + steps_per_epoch] for start in range(0, len(losses), steps_per_epoch)]
    means = tuple(sum(epoch) / len(epoch) for epoch in epochs)
    return FitReport(len(losses), means, is_complete=len(losses) == total_steps)


def _batches(rows: Batch, epochs: int, steps: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield every row once an epoch, in batches that differ by at most one row: no step stands on a handful of rows.

    Rows are gathered batch by batch, while the cache still holds them; a shuffled epoch would be a second copy of all.
    """
    bounds = [len(rows.features) * step // steps for step in range(steps + 1)]
    arrays = [getattr(rows, array.name) for array in fields(rows)]
    for _ in range(epochs):
        order = rng.permutation(len(rows.features))
        for start, stop in pairwise(bounds):
            yield Batch(*(array.take(order[start:stop], axis=0) for array in arrays))


def _joined(private: LabelledRows | None, probes: ProbeRows | None, probe_weight: float) -> Batch:
    """All rows as one batch: private rows with alpha 1, probe rows with alpha 0."""
    parts = []
    if private is not None and len(private.labels):
        parts.append(_labelled(private))
    if probes is not None and len(probes.targets):
        parts.append(_distilled(probes, probe_weight))
    if not parts:
        raise InvalidValueError("a fit needs private rows or probes")
    kinds = {(part.features.dtype, part.features.shape[1:], part.targets.shape[1]) for part in parts}
    if len(kinds) > 1:
        raise InvalidValueError(f"private rows and probes differ in type, shape or classes: {kinds}")
    return Batch(*(np.concatenate([getattr(part, array.name) for part in parts]) for array in fields(Batch)))


def _labelled(private: LabelledRows) -> Batch:
    rows = len(private.labels)
    ones = np.ones(rows, np.float32)
    labels = private.labels.astype(np.int64, copy=False)
    return Batch(private.features, labels, np.zeros((rows, private.classes), np.float32), ones, ones)


def _distilled(probes: ProbeRows, probe_weight: float) -> Batch:
    rows = len(probes.targets)
    weight = np.ones(rows, np.float32) if probes.weight is None else probes.weight
    zeros = np.zeros(rows, np.float32)
    return Batch(probes.features, np.zeros(rows, np.int64), probes.targets, zeros, np.float32(probe_weight) * weight)
