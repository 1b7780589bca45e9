"""ExpGuard, Roux et al. 2025, algorithm 2: a mean whose weights remember how far off each device has been.

    l_k = mean over probes of |p_k - m|        m = mean of all
    w_k <- w_k exp(-eta l_k)                   z = sum_k w_k p_k / sum_k w_k

The weights begin alike and go from round to round in the place of trust. Only their ratios count: after each round the
largest is 1 again, and none falls below 2^-12. A device is not forgiven: it comes back only while it is nearer to the
mean than others. Needs no labels. The judge is the crowd: who is always apart from it is silenced, a liar and an
honest expert of a rare class alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import Known, RowWeighted, to_row_weights
from broker_server.rules.voice import F64, WEIGHT_ONE, Voice, normalise, probabilities_of, to_weights, weighted_sum
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class ExpGuard(RowWeighted):
    """`rate` is eta."""

    rate: float

    card: ClassVar[Card] = Card(
        name="expguard",
        formula="sum w_k p_k / sum w_k, w_k falls with every round by exp(-eta k's distance to the mean)",
        source="Roux et al. 2025 (ExpGuard), algorithm 2",
        fails="under label skew: honest experts are far from the mean, round after round",
        needs=frozenset({Need.PUBLIC_SET, Need.MEMORY}),
        promises=frozenset(Promise),
    )

    def row_weights(self, voice: Voice) -> I64:
        return to_row_weights(np.full(len(voice.distances), voice.trust.mean() / WEIGHT_ONE), voice)

    def judge(self, voices: Iterable[Voice], known: Known) -> Mapping[str, I64]:  # noqa: ARG002 - needs no labels
        mean = normalise(weighted_sum(voices)).astype(np.float64)
        weights = {voice.device: self._weight(voice, mean) for voice in voices}
        largest = max(weights.values())
        return {
            voice.device: np.repeat(to_weights(np.array([weights[voice.device] / largest])), len(voice.trust))
            for voice in voices
        }

    def _weight(self, voice: Voice, mean: F64) -> float:
        loss = np.sqrt(np.square(probabilities_of(voice) - mean).sum(axis=1)).mean()
        return float(voice.trust.mean() / WEIGHT_ONE * np.exp(-self.rate * loss))
