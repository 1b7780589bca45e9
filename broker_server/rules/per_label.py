"""FD, Jeong et al. 2018, algorithm 1: for each label the mean over the devices that speak of it. Needs no public set.

Row y is the label y (`fd_protocol.label_set`), p_k(y) a device's mean softened output over its own rows of that label.

    z(y) = sum_{k speaks of y} a_k p_k(y) / W(y)        W(y) = sum_{k speaks of y} a_k        a_k = weight of the voice

The paper's target of device k leaves k itself out. One consensus goes to all, so W is published beside it and each
device takes its own row out. A label of which nobody speaks has W = 0 and a uniform row.

It fails where devices lack classes: of those they learn nothing. And a device that lies about a label is one voice of
the few that speak of it; there are no canaries to tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import Weigher
from broker_server.rules.voice import Voice, normalise, weighted_sum
from fd_protocol.competence import FAR
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32


@dataclass(frozen=True, slots=True)
class PerLabel:
    """A device without a map of the label set speaks of nothing."""

    card: ClassVar[Card] = Card(
        name="per-label",
        formula="mean of p_k over those who have the label; the probes are the labels",
        source="Jeong et al. 2018 (FD), algorithm 1",
        fails="where devices lack classes: of those they learn nothing; where anyone lies",
        needs=frozenset({Need.COMPETENCE}),
        promises=frozenset({Promise.HEARS_ONCE, Promise.UNANIMITY}),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        sums = weighted_sum(voices, lambda voice: speaking_weights(voice)[:, None])
        return normalise(np.where(sums.any(axis=1, keepdims=True), sums, 1))

    def weigher(self, voices: Iterable[Voice]) -> Weigher:  # noqa: ARG002 - nobody's weight depends on others
        return speaking_weights


def speaking_weights(voice: Voice) -> I64:
    """Return a_k for each label that the device speaks of, else 0: int64 [labels]."""
    return np.where(voice.distances < FAR, voice.weight, 0).astype(np.int64)
