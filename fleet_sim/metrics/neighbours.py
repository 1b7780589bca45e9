"""Is a space one in which competence can be told? A sample's nearest of other people's should mean the same.

A device says where it is competent by where its rows lie. That helps as far as what lies near them means the same, be
it of another user, site or scanner; this asks it of labelled samples, before a federation is played.
"""

from __future__ import annotations

import numpy as np

from fd_runtime.models.model import F32, I64


def of_each(groups: I64, most: int, rng: np.random.Generator) -> I64:
    """Return rows in random order, at most so many of each group: who has more to say counts no more."""
    return np.concatenate([rng.permutation(np.flatnonzero(groups == group))[:most] for group in np.unique(groups)])


def neighbour_agreement(points: F32, labels: I64, groups: I64) -> F32:
    """Return the share of samples whose nearest of another group has their class: of all, then of each class there is.

    Args:
        points: [n, dimensions], where samples lie.
        labels: [n].
        groups: [n], whose a sample is; at least two.

    Returns:
        float32 [1 + classes].
    """
    squares = np.square(points).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    distances[groups[:, None] == groups] = np.inf
    hits = labels[distances.argmin(axis=1)] == labels
    return np.array([hits.mean(), *(hits[labels == label].mean() for label in np.unique(labels))], np.float32)
