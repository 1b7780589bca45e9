"""Calibration: does a model that says 80 % hit 80 % of the time?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import I64

BINS = 15


def calibration_error(probabilities: npt.NDArray[np.floating], labels: I64, bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 3), in 0..1; NaN of no rows.

        ECE = sum_m |B_m| / n |accuracy(B_m) - confidence(B_m)|

    B_m are the rows whose largest probability lies in ((m - 1) / M, m / M].

    Args:
        probabilities: [n, classes], at temperature 1.
        labels: [n].
        bins: M.
    """
    if not len(labels):
        return float("nan")
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bin_of = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    gaps = np.bincount(bin_of, is_right - confidence, bins)  # |B| (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(labels))
