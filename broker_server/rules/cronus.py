"""Cronus, Chang et al. 2019: the mean of each probe's distributions without those that stretch them most.

    twice: s_k = |v . (p_k - mean)|, v the direction of most variance; drop the floor(alpha K / 2) largest s_k
    z = weighted mean of what is left

after the robust mean of Diakonikolas et al. 2017, with two rounds of filtering as in the study of Roux et al. 2025. Its
code finds v by power iteration from (1, ..., 1), which is orthogonal to every difference of distributions, so that it
filters by rounding errors; here v is the leading eigenvector itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker_server.rules.card import Card, Promise
from broker_server.rules.stacks import by_probe
from broker_server.rules.voice import F64, Voice
from fd_protocol.soft_labels import F32

_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Cronus:
    """`liars` is alpha, the share of voices that are taken for lies; below 0.5."""

    liars: float

    @property
    def card(self) -> Card:
        return Card(
            name="cronus",
            formula="mean of p_k without those far out along the direction of most variance",
            source="Chang et al. 2019 (Cronus)",
            fails="under label skew: honest minority experts lie far out; liars that differ are not all filtered",
            promises=frozenset({Promise.HULL, Promise.UNANIMITY}),
        )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        return by_probe(voices, self._filtered)

    def _filtered(self, weights: F64, labels: F64) -> F64:
        """Weights [devices], labels [devices, rows, classes] -> [rows, classes]."""
        dropped = int(self.liars * len(weights) / 2)
        heard = np.repeat(weights[:, None], labels.shape[1], axis=1)
        for _ in range(_ROUNDS if dropped else 0):
            scores = np.where(heard > 0, _outlier_scores(heard, labels), -1.0)
            worst = np.argsort(-scores, axis=0, kind="stable")[:dropped]
            np.put_along_axis(heard, worst, 0.0, axis=0)
        return _means(heard, labels)


def _means(heard: F64, labels: F64) -> F64:
    means: F64 = (heard[:, :, None] * labels).sum(axis=0) / heard.sum(axis=0)[:, None]
    return means


def _outlier_scores(heard: F64, labels: F64) -> npt.NDArray[np.float64]:
    """Return |v . (p_k - mean)| of each voice on each row, [devices, rows], by the weights `heard` [devices, rows]."""
    centred = (labels - _means(heard, labels)).transpose(1, 0, 2)
    spread = centred * np.sqrt(heard.T)[:, :, None]
    _, vectors = np.linalg.eigh(spread.transpose(0, 2, 1) @ spread)
    scores: F64 = np.abs(centred @ vectors[:, :, -1:])[:, :, 0].T
    return scores
