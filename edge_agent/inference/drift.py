"""Are these samples still like those of the reference? Numbers from numbers: no clock, no state.

The distance is the population stability index, sum (a_i - e_i) ln(a_i / e_i) over the bins of a reference: the
symmetric divergence of Kullback and Leibler (1951), as credit scoring watches its inputs with. Two thresholds must both
be passed:

- a size: 0.25, from where a shift is called significant (Siddiqi 2006, chapter 7); below it nothing is worth doing;
- chance: of two samples of n and m rows from one distribution the index is (1/n + 1/m) times a chi-squared number of
  bins - 1 degrees of freedom (Yurdakul and Naranjo 2020). No more than `FALSE_ALARMS` of all windows of rows that are
  as ever exceed it in any feature; features count as one question each (Bonferroni).

Rows of a camera follow each other closely and tell less than as many independent ones: n is what they are worth, by
their first autocorrelation (Bayley and Hammersley 1946, for a process of order one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fd_protocol.reference import Binned, Reference
from fd_runtime.models.model import F32
from fd_runtime.models.reference import counts_of

SIZE = 0.25
FALSE_ALARMS = 1e-3
_MOST_CORRELATED = 0.99


@dataclass(frozen=True, slots=True)
class Shift:
    """How far rows lie from a reference.

    Attributes:
        distance: population stability index; of inputs that of the feature that stands out most.
        threshold: beyond which it is no chance, and large.
        feature: which one stands out; -1 for confidence.
    """

    distance: float
    threshold: float
    feature: int = -1

    @property
    def is_drift(self) -> bool:
        return self.distance > self.threshold


def shift_of_inputs(reference: Reference, pooled: F32) -> Shift:
    """Return how far pooled features [n, d] lie from the reference, in the feature where that is clearest."""
    shifts = [
        _shift(spread, column, reference.rows, FALSE_ALARMS / len(reference.features), place)
        for place, (spread, column) in enumerate(zip(reference.features, pooled.T, strict=True))
    ]
    return max(shifts, key=lambda shift: shift.distance / shift.threshold)


def shift_of_confidence(spread: Binned, rows: int, confidence: F32) -> Shift:
    """Return how far confidences [n] lie from those of `rows` rows."""
    return _shift(spread, confidence, rows, FALSE_ALARMS, -1)


def _shift(spread: Binned, values: F32, rows: int, false_alarms: float, place: int) -> Shift:
    chance = critical(len(spread.shares), effective_rows(values), rows, false_alarms)
    return Shift(stability_index(spread, values), max(SIZE, chance), place)


def stability_index(spread: Binned, values: F32) -> float:
    """Return the population stability index of `values` [n] against `spread`; half a row is added to every bin.

    A number that was constant has one bin and no distance: what is not the constant shows in another feature.
    """
    expected = np.array(spread.shares) + 1e-6
    found = (counts_of(spread.edges, values) + 0.5) / (len(values) + 0.5 * len(expected))
    return float(((found - expected) * np.log(found / expected)).sum())


def critical(bins: int, rows: float, reference_rows: int, false_alarms: float) -> float:
    """Return the index that only `false_alarms` of all samples of `rows` rows exceed by chance."""
    return (1.0 / rows + 1.0 / reference_rows) * _chi_squared(bins - 1, 1.0 - false_alarms)


def _chi_squared(degrees: int, share: float) -> float:
    """Return the quantile below which `share` of the distribution lies (Wilson and Hilferty 1931)."""
    if degrees < 1:
        return 0.0
    spread = 2.0 / (9.0 * degrees)
    root = 1.0 - spread + NormalDist().inv_cdf(share) * math.sqrt(spread)
    return degrees * max(root, 0.0) ** 3


def effective_rows(values: F32) -> float:
    """Return how many independent rows a series [n] is worth, from 1 to n."""
    centred: npt.NDArray[np.float64] = values.astype(np.float64) - float(values.mean())
    power = float(centred @ centred)
    correlation = float(centred[1:] @ centred[:-1]) / power if power else 0.0
    correlation = min(max(correlation, 0.0), _MOST_CORRELATED)
    return max(1.0, len(values) * (1.0 - correlation) / (1.0 + correlation))
