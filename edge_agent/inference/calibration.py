"""How sure the model may be here: a temperature and a class prior, from this device's own labelled rows.

Both count for personal predictions alone; what is published is the plain model's word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.inference.predictor import Adjustment
from edge_agent.local_prior import log_prior
from fd_runtime.model import F32, I64

MIN_ROWS = 30
"""Fewer held-out labels tell nothing of a temperature."""
_MOST_ROWS = 500
_PRIOR_DEVIATION = 0.5
"""Of the logarithm: without other evidence a temperature lies, two times in three, between 0.6 and 1.6."""
_STEPS = 48
_BOUNDS = (math.log(0.1), math.log(10.0))
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found, and from how many rows."""

    adjustment: Adjustment
    labelled: int
    held_out: int


class Labelled(Protocol):
    """Labelled rows of this device, wherever they lie."""

    @property
    def labels(self) -> I64:
        """Return int64 [n]."""
        ...

    def split(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return masks [n] of the rows that are trained on and of the hold-out."""
        ...


def calibrate(
    rows: Labelled,
    classes: int,
    logits: Callable[[npt.NDArray[np.intp]], F32],
    *,
    has_prior: bool,
    has_temperature: bool,
) -> Calibration:
    """Return the adjustment that labelled rows ask for.

    Args:
        rows: perhaps none.
        classes: of the task.
        logits: what the model says of the rows at some places [m], before any adjustment: [m, classes].
        has_prior: whether to correct by the class prior.
        has_temperature: whether to look for a temperature; 1 where too few rows are held out.
    """
    training, held_out = rows.split()
    prior = log_prior(rows.labels[training], classes) if has_prior and training.any() else None
    places = np.flatnonzero(held_out)[-_MOST_ROWS:]
    temperature = 1.0
    if has_temperature and len(places) >= MIN_ROWS:
        temperature = fit_temperature(logits(places), rows.labels[places], prior)
    return Calibration(Adjustment(temperature, prior), len(rows.labels), len(places))


def fit_temperature(logits: F32, labels: I64, prior: F32 | None = None) -> float:
    """Return the temperature at which softmax(logits / T + prior) is likeliest (Guo et al. 2017, section 4.2).

    A weak prior around 1 keeps it finite where every label is right. The loss is convex in 1 / T, so the search by
    golden sections finds the one minimum.

    Args:
        logits: [n, classes], finite.
        labels: int64 [n].
        prior: log p(class) [classes], or None.
    """
    low, high = _BOUNDS
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = _loss(left, logits, labels, prior), _loss(right, logits, labels, prior)
    for _ in range(_STEPS):
        if loss_left < loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = _loss(left, logits, labels, prior)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = _loss(right, logits, labels, prior)
    return math.exp((low + high) / 2.0)


def _loss(log_temperature: float, logits: F32, labels: I64, prior: F32 | None) -> float:
    scaled = logits.astype(np.float64) / math.exp(log_temperature)
    scaled = scaled if prior is None else scaled + prior
    scaled -= scaled.max(axis=1, keepdims=True)
    log_chance = scaled[np.arange(len(labels)), labels] - np.log(np.exp(scaled).sum(axis=1))
    return float(-log_chance.sum()) + 0.5 * (log_temperature / _PRIOR_DEVIATION) ** 2
