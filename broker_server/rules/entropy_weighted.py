"""Entropy-weighted mean, Cheng et al. 2021 (FedGEMS), ensemble weights: listen to those who are sure.

    z = sum_k w_k p_k / sum_k w_k        w_k = a_k exp(1 / max(H(p_k), h)),  H in nats

FedGEMS takes softmax(1 / H) over the devices that are right on a labelled probe; our probes have no labels, so all
devices speak. Near H = 0 its weight is without bound; h is where being surer stops to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.rule import RowWeighted, to_row_weights
from broker_server.rules.voice import Voice, entropies_of, probabilities_of
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class EntropyWeighted(RowWeighted):
    """`least_entropy` is h, in nats."""

    least_entropy: float

    card: ClassVar[Card] = Card(
        name="entropy-weighted",
        formula="sum w_k p_k / sum w_k, w_k = exp(1 / entropy of p_k)",
        source="Cheng et al. 2021 (FedGEMS)",
        fails="where models are sure of what they do not know, as after long local training; where anyone lies",
        promises=frozenset(Promise),
    )

    def row_weights(self, voice: Voice) -> I64:
        entropies = np.maximum(entropies_of(probabilities_of(voice)), self.least_entropy)
        return to_row_weights(np.exp(1 / entropies - 1 / self.least_entropy), voice)
