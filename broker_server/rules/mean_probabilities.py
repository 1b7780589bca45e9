"""The plain mean of probabilities: "simple aggregation" (SA), Itahara et al. 2021 (DS-FL).

    z = sum_k a_k p_k / sum_k a_k        a_k = weight of the voice

The right choice where every device knows every class, and wherever nobody can be trusted more than another. Under
label skew it lies below the model that devices started from, unless they train jointly (docs/adr/0004-methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from broker_server.rules.card import Card, Promise
from broker_server.rules.rule import RowWeighted, by_age
from broker_server.rules.voice import Voice
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class MeanProbabilities(RowWeighted):
    """A voice weighs by its age alone."""

    card: ClassVar[Card] = Card(
        name="mean-probabilities",
        formula="mean of p_k",
        source="Itahara et al. 2021 (DS-FL), SA",
        fails="under label skew: those who do not know a probe outvote those who do; where anyone lies",
        promises=frozenset(Promise),
    )

    def row_weights(self, voice: Voice) -> I64:
        return by_age(voice)
