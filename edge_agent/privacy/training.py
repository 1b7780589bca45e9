"""One private training: DP-SGD (Abadi et al. 2016, algorithm 1) over the bundle's clipping graph.

    for each step:  Poisson lot -> clipped sum, in parts that fit the memory -> + noise -> one step of the optimizer

A lot has as many rows as chance gives it; what is in memory at once must not grow with it. The graph takes its
optimizer's step at once, but `noise` is added to the clipped sum: a part's sum is read from a throw-away run
(`clipped_sum`), and one row of padding with "noise" = all sums + the noise is the step of the whole lot. Nothing of the
mechanism changes.

What a caller may see of it are the weights at the end. Losses are not private and are not even returned; weights that
are not finite are noticed on the noised ones, which is nobody's secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.learning.checkpoint import array_sha256
from edge_agent.privacy.noise import NoiseStream
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.terms import PrivacyTerms
from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import F32, I64, Batch, OptimizerState, PrivateTrainSession

_BETA1 = 0.9
"""Of the train-step graphs' Adam: a first moment that began at zero is (1 - beta1) times the gradient."""


class PrivateTrainingDivergedError(FedistillError):
    """The noised weights are no numbers any more."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the private training diverged at step {step}")


@dataclass(frozen=True, slots=True)
class PrivatePlan:
    """How a private training goes: the terms, and the noise that makes it cost what they allow."""

    terms: PrivacyTerms
    noise_multiplier: float

    @property
    def expected_rows(self) -> float:
        return self.terms.sampling_rate * self.terms.rows


def train_privately(
    session: PrivateTrainSession,
    rows: LabelledRows,
    plan: PrivatePlan,
    noise: NoiseStream,
    *,
    done: int = 0,
    part_rows: int = 4096,
    after_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Take the steps that are left; the session's state moves on.

    Args:
        session: where it was after `done` steps.
        rows: private rows, perhaps none.
        plan: how.
        noise: its chance.
        done: steps that were taken before.
        part_rows: most rows in memory as one batch.
        after_step: told the number of steps taken; may raise to break off.

    Raises:
        PrivateTrainingDivergedError: so.
    """
    terms, size = plan.terms, session.state.theta.size
    for step in range(done, terms.steps):
        chosen = np.flatnonzero(noise.lot(step, len(rows.labels), terms.sampling_rate))
        parts = [_batch(rows, chosen[start : start + part_rows]) for start in range(0, len(chosen), part_rows)]
        added = noise.normal(step, size, plan.noise_multiplier * terms.clip_norm)
        if len(parts) != 1:
            added = added + sum((clipped_sum(session, part, terms.clip_norm) for part in parts), np.float32(0))
            parts = [_padding(rows.features.shape[1:], rows.features.dtype, rows.classes)]
        session.run(
            parts[0],
            learning_rate=terms.learning_rate,
            clip_norm=terms.clip_norm,
            noise=added.astype(np.float32, copy=False),
            expected_rows=plan.expected_rows,
        )
        if not np.isfinite(session.state.theta).all():
            raise PrivateTrainingDivergedError(step + 1)
        after_step(step + 1)


def clipped_sum(session: PrivateTrainSession, batch: Batch, clip_norm: float) -> F32:
    """Return the sum of a batch's clipped gradients, float32 [parameters]; the session's state stays.

    It is what the optimizer's first memory holds after a step from nothing; of an optimizer without one it is how far
    the step went, beside a step of padding, which only decays.

    Raises:
        InvalidValueError: no optimizer of ours keeps such slots.
    """
    after = _after_a_step(session, batch, clip_norm)
    match sorted(after.slots):
        case ["moment1", "moment2"]:
            return after.slots["moment1"] / np.float32(1 - _BETA1)
        case ["velocity"]:
            return after.slots["velocity"]
        case []:
            return _after_a_step(session, _padding_like(batch), clip_norm).theta - after.theta
        case slots:
            raise InvalidValueError(f"no optimizer keeps the slots {slots}")


def _after_a_step(session: PrivateTrainSession, batch: Batch, clip_norm: float) -> OptimizerState:
    """Return where a step of rate 1 leads that begins with an empty memory, without going there."""
    before = session.state
    silence = np.zeros_like(before.theta)
    try:
        session.state = OptimizerState.fresh(before.theta, before.slots.keys())
        session.run(batch, learning_rate=1.0, clip_norm=clip_norm, noise=silence, expected_rows=1.0)
        return session.state
    finally:
        session.state = before


def digest_of(rows: LabelledRows) -> bytes:
    """Return the identity of rows in their order; it never leaves the device."""
    shape = f"{rows.features.dtype.str} {rows.features.shape} {rows.classes}\n".encode()
    return sha256(shape + array_sha256(rows.features) + array_sha256(rows.labels.astype(np.int64, copy=False)))


def _batch(rows: LabelledRows, chosen: I64) -> Batch:
    ones = np.ones(len(chosen), np.float32)
    targets = np.zeros((len(chosen), rows.classes), np.float32)
    return Batch(rows.features[chosen], rows.labels[chosen].astype(np.int64, copy=False), targets, ones, ones)


def _padding_like(batch: Batch) -> Batch:
    return _padding(batch.features.shape[1:], batch.features.dtype, batch.targets.shape[1])


def _padding(shape: tuple[int, ...], dtype: npt.DTypeLike, classes: int) -> Batch:
    """One row that counts nothing: what an empty lot is, and what takes the step of one in parts."""
    zero = np.zeros(1, np.float32)
    return Batch(np.zeros((1, *shape), dtype), np.zeros(1, np.int64), np.zeros((1, classes), np.float32), zero, zero)
