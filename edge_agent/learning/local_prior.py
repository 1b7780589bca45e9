"""Personal inference: a device that meets some classes more often than others may say so.

The consensus teaches p(class | sample) as if all classes were equally frequent; by Bayes' rule the prior of this device
is a constant added to the logits. It never touches what is published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32, I64

_PSEUDO_ROWS = 1.0
"""Laplace's rule of succession: a class not met yet stays possible."""


def log_prior(labels: I64, classes: int) -> F32:
    """Return log p(class) float32 [classes] from private `labels` int64 [n]; without labels all are equal."""
    return log_prior_of(np.bincount(labels, minlength=classes))


def log_prior_of(counts: npt.NDArray[Any]) -> F32:
    """Return log p(class) float32 [classes] from how many rows of each were met, [classes]."""
    smoothed = counts + _PSEUDO_ROWS
    return np.asarray(np.log(smoothed / smoothed.sum()), np.float32)


def correct(logits: F32, prior: F32) -> F32:
    """Return `logits` [n, classes] shifted by the log-prior [classes]."""
    return logits + prior
