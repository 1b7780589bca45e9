"""Geometric median of each probe's distributions, by smoothed Weiszfeld steps: Pillutla et al. 2022 (RFA), algorithm 1.

    z = argmin_z sum_k a_k |p_k - z|        z <- sum_k b_k p_k / sum_k b_k,  b_k = a_k / max(v, |p_k - z|)

Soft labels of one probe are points of a simplex, and z lies in their hull. While less than half of the weight lies, it
stays near the honest. It judges a device anew on every probe, unlike `expguard`, and loses less of an honest minority
than the median does: measured on MNIST at Dirichlet 0.1 without attackers 80.7 % where the mean has 84.7 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.stacks import by_probe
from broker_server.rules.voice import F64, Voice
from fd_protocol.soft_labels import F32

STEPS = 64
"""A fixed number, so that a probe's consensus does not depend on which others it is computed with."""
SMOOTHING = 1e-4
"""v: a voice nearer than this pulls no harder. Far below the step of any codec."""


@dataclass(frozen=True, slots=True)
class GeometricMedian:
    """Row-wise."""

    card: ClassVar[Card] = Card(
        name="geometric-median",
        formula="the point with the least sum of distances to all p_k",
        source="Pillutla et al. 2022 (RFA), algorithm 1",
        fails="under label skew: it drifts to what the majority guesses",
        promises=frozenset({Promise.HULL, Promise.UNANIMITY}),
        breakdown=0.5,
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        return by_probe(voices, _medians)


def _medians(weights: F64, labels: F64) -> F64:
    """Weights [devices], labels [devices, rows, classes] -> [rows, classes]."""
    pulls = np.broadcast_to(weights[:, None], labels.shape[:2])
    for _ in range(STEPS):
        medians: F64 = (pulls[:, :, None] * labels).sum(axis=0) / pulls.sum(axis=0)[:, None]
        pulls = weights[:, None] / np.maximum(SMOOTHING, np.sqrt(np.square(labels - medians).sum(axis=2)))
    return medians
