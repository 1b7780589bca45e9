"""Variance-weighted mean, Cho et al. 2022 (Fed-ET), weighted consensus: listen to those whose logits differ most.

    z = sum_k w_k p_k / sum_k w_k        w_k = a_k Var(logits of p_k), over the classes

log p_k tells the logits up to a constant a row, which a variance does not see, and up to the temperature, which is the
same for all. What a codec rounds to 0 counts as 2^-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.rule import RowWeighted, to_row_weights
from broker_server.rules.voice import Voice
from fd_protocol.quantisers import I64, ONE

_MOST = np.log(ONE) ** 2 / 4
"""No variance is larger: half of the classes at probability 2^-20, half at 1 (Popoviciu 1935)."""


@dataclass(frozen=True, slots=True)
class VarianceWeighted(RowWeighted):
    """A voice that says the same of every class weighs next to nothing."""

    card: ClassVar[Card] = Card(
        name="variance-weighted",
        formula="sum w_k p_k / sum w_k, w_k = variance of k's logits",
        source="Cho et al. 2022 (Fed-ET)",
        fails="where models are sure of what they do not know; where anyone lies",
        promises=frozenset(Promise),
    )

    def row_weights(self, voice: Voice) -> I64:
        return to_row_weights(np.log(np.maximum(voice.integers, 1)).var(axis=1) / _MOST, voice)
