"""Do neighbours mean the same? What a space of competence is worth, asked of a labelled data set before any federation.

A device says where it is competent by where its rows lie. That helps as far as a sample's neighbours have its class, be
they somebody else's: for each sample, the nearest of all other people's, in the widest axes of some of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.model import F32, I64
from fleet_sim.data import Dataset
from model_export.public_set import DIMENSIONS, principal_axes

Vectors = Callable[[Any], F32]
"""From samples [n, *sample_shape] to what axes are made from and applied to, [n, D]."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How many samples are asked.

    Attributes:
        of_each: of each person, at most.
        probes: of all of them, that the axes are made from.
        dimensions: of the space, at most.
    """

    of_each: int = 100
    probes: int = 600
    dimensions: int = DIMENSIONS


def agreement(dataset: Dataset, vectors: Vectors, draw: Draw, rng: np.random.Generator) -> F32:
    """Return the share of samples whose nearest of another person has their class: of all, then of each class that
    there is, float32 [1 + classes].

    Raises:
        InvalidValueError: nobody said whose the samples are.
    """
    if dataset.groups is None:
        raise InvalidValueError(f"{dataset.name} names no users, sites or speakers: a neighbour is another's")
    rows = _drawn(dataset.groups, draw.of_each, rng)
    groups, labels = dataset.groups[rows], dataset.labels[rows]
    points = located(vectors(dataset.samples[rows]), draw, rng)
    hits = labels[nearest(points, groups)] == labels
    return np.array([hits.mean(), *(hits[labels == label].mean() for label in np.unique(labels))], np.float32)


def located(rows: F32, draw: Draw, rng: np.random.Generator) -> F32:
    """Return where vectors [n, D] lie in the widest axes of some of them, [n, dimensions]."""
    _, _, axes = principal_axes(rng.permutation(rows)[: draw.probes], draw.dimensions)
    return np.asarray(rows @ axes.T)


def nearest(points: F32, groups: I64) -> I64:
    """Return the place of the nearest point of another group, int64 [n]."""
    squares = np.square(points).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    distances[groups[:, None] == groups] = np.inf
    places: I64 = distances.argmin(axis=1)
    return places


def _drawn(groups: I64, of_each: int, rng: np.random.Generator) -> I64:
    """Return rows, as many of each group that has so many."""
    people = (np.flatnonzero(groups == group) for group in np.unique(groups))
    return np.concatenate([rng.permutation(own)[:of_each] for own in people])
