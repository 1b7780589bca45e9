"""The mean of logits, Li and Wang 2019 (FedMD), algorithm 1: the geometric mean of the distributions.

    z = softmax(sum_k a_k log p_k / sum_k a_k)        a_k = weight of the voice

Devices send distributions softened at the offered temperature, which tell logits up to a constant a row; softmax of the
mean does not see the constant. One device that is sure a class is wrong all but vetoes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.voice import Voice, heard, softmax
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

_NAT = 1 << 16
"""The integer that stands for one nat."""


@dataclass(frozen=True, slots=True)
class MeanLogits:
    """Logits are integers, 2^16 a nat."""

    card: ClassVar[Card] = Card(
        name="mean-logits",
        formula="softmax(mean of log p_k)",
        source="Li and Wang 2019 (FedMD), algorithm 1",
        fails="under label skew, and where anyone lies: a single voice that is sure vetoes a class",
        promises=frozenset({Promise.HEARS_ONCE, Promise.UNANIMITY}),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        logits: I64 | None = None
        total = 0
        for voice in heard(voices):
            part = voice.weight * _logits(voice)
            logits = part if logits is None else logits + part
            total += voice.weight
        assert logits is not None
        return softmax(logits / (total * _NAT))


def _logits(voice: Voice) -> I64:
    """The log of p, as integers; what a codec rounds to 0 counts as the smallest probability that an integer tells."""
    logits: I64 = np.rint(np.log(np.maximum(voice.integers, 1)) * _NAT).astype(np.int64)
    return logits
