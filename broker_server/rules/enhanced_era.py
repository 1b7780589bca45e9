"""Enhanced ERA, Azuma et al. 2026 (SCARLET): the mean to a power; here the power is earned by agreement.

    z = m^b / sum m^b                                 m = sum_k a_k p_k / sum_k a_k       (SCARLET, enhanced ERA)
    b = 1 + (B - 1) max(0, (A - A_0) / (1 - A_0))     A = mean over probes of the share of voices that claim m's class

SCARLET's b is fixed. A fixed b of 2 collapses from a cold start under label skew (measured on digits at Dirichlet 0.1:
13 % where the plain mean has 89 %), so b starts at 1, rises only while agreement rises above A_0, and falls with it. It
follows from the round alone: nothing is remembered, a restart or a replay gives the same.

No row is sharpened below the entropy floor: there b is the largest that keeps it, by bisection (entropy falls in b:
dH/db = -b Var(log m)). A row that is sharper already stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.voice import F64, Voice, claims_of, entropies_of, heard, softmax
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

_BISECTIONS = 30


@dataclass(frozen=True, slots=True)
class EnhancedEra:
    """`beta` is B, `agreement` A_0; `entropy_floor` in nats."""

    beta: float
    agreement: float
    entropy_floor: float

    card: ClassVar[Card] = Card(
        name="enhanced-era",
        formula="m^b / sum m^b, m = mean of p_k, b from 1 up as voices agree",
        source="Azuma et al. 2026 (SCARLET), enhanced ERA; b by agreement is ours",
        fails="as the mean does while devices disagree; where they agree on what is wrong it makes them sure",
        promises=frozenset({Promise.HEARS_ONCE}),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        sums: I64 | None = None
        total = 0
        for voice in heard(voices):
            if sums is None:
                sums, claims = np.zeros_like(voice.integers), np.zeros_like(voice.integers)
                rows = np.arange(len(sums))
            sums += voice.weight * voice.integers
            claims[rows, claims_of(voice)] += voice.weight
            total += voice.weight
        assert sums is not None
        mean: F64 = sums / sums.sum(axis=1, keepdims=True)
        agreement = float(claims[rows, mean.argmax(axis=1)].mean() / total)
        return sharpened(mean, self.exponent(agreement), self.entropy_floor)

    def exponent(self, agreement: float) -> float:
        """Return b where this share of voices agrees with their mean."""
        return 1.0 + (self.beta - 1.0) * max(0.0, (agreement - self.agreement) / (1.0 - self.agreement))


def sharpened(mean: F64, exponent: float, entropy_floor: float) -> F32:
    """Return rows [n, classes] to the power of `exponent`, or of what keeps their entropy at the floor; at least 1."""
    logits = np.log(np.maximum(mean, 1e-300))
    least, most = np.ones(len(mean)), np.full(len(mean), exponent)
    is_too_sharp = entropies_of(_powers(logits, most)) < entropy_floor
    for _ in range(_BISECTIONS):
        middle = (least + most) / 2
        is_kept = entropies_of(_powers(logits, middle)) >= entropy_floor
        least, most = np.where(is_kept, middle, least), np.where(is_kept, most, middle)
    return softmax(logits * np.where(is_too_sharp, least, exponent)[:, None])


def _powers(logits: F64, exponents: F64) -> F64:
    powers = np.exp(exponents[:, None] * (logits - logits.max(axis=1, keepdims=True)))
    rows: F64 = powers / powers.sum(axis=1, keepdims=True)
    return rows
