"""COMET, Cho et al. 2023 (PerFed-CKT, 2021): like-minded devices teach one another, by a consensus of their own.

    clusters: k-means of what the devices say, p_k in R^(probes x classes)
    z_i = sum_{k in cluster i} a_k p_k / sum_{k in cluster i} a_k        a_k = weight of the voice

Each device learns the z_i that lies nearest to what it says itself. It finds that out by itself
(`edge_agent.learning.nearest`), so nobody is told who is in which cluster, and what all say together is published
beside it, for the student, and for agents that know of no clusters.

k-means by Lloyd's steps. The first seed is the voice nearest to the mean of all; each further one is the farthest from
all seeds such that m voices' weight lies as far away, m = `least`: fewer than m who are unlike everybody get no cluster
by being strange, and take none from others. Equals stand in the order of their names: that of arrival changes nothing.

A cluster of one or two would publish what its members said. So while the smallest cluster has an effective number of
voices

    (sum a_k)^2 / sum a_k^2  <  least

its centroid goes, and its members join the others. Where one cluster is left there are none.

Voices are heard again in every step, one at a time: memory holds a few consensuses, and time grows with devices times
steps. What is deliberately absent: who was in which cluster, in records as on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.rule import RowWeighted, by_age
from broker_server.rules.voice import F64, WEIGHT_ONE, Voice, heard, normalise, weighted_sum
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

STEPS = 20
"""Most of Lloyd's steps before and after a cluster is dissolved; a handful is the rule."""


@dataclass(frozen=True, slots=True)
class Comet(RowWeighted):
    """`most_clusters` is what k-means begins with, `least` the effective voices that a cluster must have."""

    most_clusters: int
    least: int

    card: ClassVar[Card] = Card(
        name="comet",
        formula="mean of p_k in each cluster of like-minded devices; a device learns the nearest",
        source="Cho et al. 2023 (COMET)",
        fails="where devices differ in what they know, not in what is true: clusters keep it from one another; "
        "where liars talk like a cluster",
        promises=frozenset({Promise.HULL, Promise.UNANIMITY}),
    )

    def row_weights(self, voice: Voice) -> I64:
        """Weigh a voice by its age, in the consensus of all as in that of its cluster."""
        return by_age(voice)

    def clusters(self, voices: Iterable[Voice]) -> Sequence[F32]:
        weights = {voice.device: voice.weight for voice in heard(voices)}
        clusters = _settled(voices, self._seeds(voices, weights))
        while len(clusters.sums) > 1:
            sizes = clusters.effective_voices(weights)
            if min(sizes) >= self.least:
                return tuple(normalise(sums) for sums in clusters.sums)
            clusters = _settled(voices, np.delete(clusters.centroids, int(np.argmin(sizes)), axis=0))
        return ()

    def _seeds(self, voices: Iterable[Voice], weights: Mapping[str, int]) -> F64:
        """Return points to begin with, float64 [clusters, n, classes]; no more than all weight can fill."""
        farness = _farness(voices, _rows(weighted_sum(voices))[None])
        seeds = _point(voices, min(farness, key=lambda device: (farness[device], device)))[None]
        room = sum(weights.values()) // (self.least * WEIGHT_ONE)
        while len(seeds) < min(self.most_clusters, room):
            strange = self._strange(_farness(voices, seeds), weights)
            seeds = np.concatenate([seeds, _point(voices, strange)[None]])
        return seeds

    def _strange(self, farness: Mapping[str, float], weights: Mapping[str, int]) -> str:
        """Return the farthest device such that `least` voices' weight lies at least as far away."""
        weight = 0
        for device in sorted(farness, key=lambda device: (-farness[device], device)):
            weight += weights[device]
            if weight >= self.least * WEIGHT_ONE:
                break
        return device


@dataclass(frozen=True, slots=True, eq=False)
class _Clusters:
    """Who belongs where, by name, and of each cluster the sum of weights x integers: int64 [clusters, n, classes]."""

    owners: Mapping[str, int]
    sums: I64

    @property
    def centroids(self) -> F64:
        """Return what each cluster says, [clusters, n, classes]; of one that nobody joined, what nobody is near."""
        return np.stack([_rows(sums) if sums.any() else np.full(sums.shape, np.inf) for sums in self.sums])

    def effective_voices(self, weights: Mapping[str, int]) -> list[float]:
        """Return (sum a)^2 / sum a^2 of each cluster; 0 of an empty one."""
        members: list[list[int]] = [[] for _ in self.sums]
        for device, owner in self.owners.items():
            members[owner].append(weights[device])
        return [sum(each) ** 2 / sum(a * a for a in each) if each else 0.0 for each in members]


def _settled(voices: Iterable[Voice], centroids: F64) -> _Clusters:
    """Take Lloyd's steps until nobody changes sides."""
    clusters = _joined(voices, centroids)
    for _ in range(STEPS - 1):
        after = _joined(voices, clusters.centroids)
        if after.owners == clusters.owners:
            break
        clusters = after
    return clusters


def _joined(voices: Iterable[Voice], centroids: F64) -> _Clusters:
    """Let each voice join the nearest centroid, the first of equals."""
    owners: dict[str, int] = {}
    sums = np.zeros(centroids.shape, np.int64)
    for voice in voices:
        owner = owners[voice.device] = int(_distances(voice, centroids).argmin())
        sums[owner] += voice.weight * voice.integers
    return _Clusters(owners, sums)


def _farness(voices: Iterable[Voice], points: F64) -> dict[str, float]:
    """Return how far each device is from the nearest of `points` [k, n, classes], squared."""
    return {voice.device: float(_distances(voice, points).min()) for voice in voices}


def _distances(voice: Voice, points: F64) -> F64:
    """Return the squared distance of a voice to each of `points` [k, n, classes], [k]."""
    said = _rows(voice.integers)
    return np.array([np.square(said - point).sum() for point in points])


def _point(voices: Iterable[Voice], device: str) -> F64:
    return next(_rows(voice.integers) for voice in voices if voice.device == device)


def _rows(integers: I64) -> F64:
    rows: F64 = integers / integers.sum(axis=1, keepdims=True)
    return rows
