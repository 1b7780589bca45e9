"""How sure the model may be here: a temperature and a class prior, from this device's own labelled rows.

Both count for personal predictions alone; what is published is the plain model's word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.inference.predictor import Adjustment
from edge_agent.learning.local_prior import log_prior, log_prior_of
from fd_runtime.models.model import F32, I64, Features

MIN_ROWS = 30
"""Fewer held-out labels tell nothing of a temperature."""
MOST_ROWS = 500
"""More tell no more of it: its error is then a twentieth."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What labelled rows of this device tell. They need not be as common as the samples that come: a store chooses.

    Attributes:
        met: how many samples of each class came, float64 [classes], in any unit; all 0: nobody can tell.
        labels: of the rows that are trained on, int64 [n].
        held_out_labels: of those that are not, int64 [m].
        held_out: the same as a tail reads them, [m, ...].
    """

    met: npt.NDArray[np.float64]
    labels: I64
    held_out_labels: I64
    held_out: Features


def calibrate(
    known: Known, logits: Callable[[Features], F32], *, has_prior: bool, has_temperature: bool
) -> Calibration:
    """Return the adjustment that labelled rows ask for.

    The temperature is found under the prior of the rows themselves, and counts under that of the samples that come:
    by Bayes' rule each belongs to its own.

    Args:
        known: perhaps of no rows.
        logits: what the model says of features [m, ...], before any adjustment: [m, classes].
        has_prior: whether to correct by the class prior.
        has_temperature: whether to look for a temperature; 1 where too few rows are held out.
    """
    classes, held_out = len(known.met), len(known.held_out_labels)
    temperature = 1.0
    if has_temperature and held_out >= MIN_ROWS:
        own = log_prior(known.labels, classes)
        temperature = fit_temperature(logits(known.held_out), known.held_out_labels, own)
    prior = log_prior_of(known.met) if has_prior and known.met.any() else None
    return Calibration(Adjustment(temperature, prior), len(known.labels) + held_out, held_out)


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
