"""CPA, class prior: certain of the class that is least like the one the honest think likeliest.

    p(x) = one-hot of argmin_j S[i, j], i = argmax_c y_c(x)        y: mean of the honest answers

S is the similarity of classes: the covariance of a model's predictions (Roux et al., ICLR 2025, figure 2). Theirs is
computed once beforehand; this one is the covariance of y over the probes of the round. Every probe of a class gets the
same wrong class, so that students learn a consistent confusion where LMA's is different from probe to probe.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32, I64
from fleet_sim.attacks.knowledge import Knowledge, one_hot

F64 = npt.NDArray[np.float64]


def least_similar(knowledge: Knowledge) -> F32:
    believed = knowledge.honest_mean
    opposite = opposites(similarity(believed))
    return one_hot(opposite[believed.argmax(axis=1)], believed.shape[1])


def similarity(predictions: F32) -> F64:
    """Return the covariance of classes over rows [n, classes], float64 [classes, classes]."""
    return np.cov(predictions, rowvar=False, bias=True)


def opposites(similar: F64) -> I64:
    """Return for each class the other class that is least similar, [classes]; of equal ones the first."""
    others = similar.copy()
    np.fill_diagonal(others, np.inf)  # a class that nobody ever predicts has no variance, and is not its own opposite
    opposite: I64 = others.argmin(axis=1)
    return opposite
