"""Size-weighted mean: FedAvg's weights n_k / n (McMahan et al. 2017, algorithm 1) on soft labels.

    z = sum_k a_k n_k p_k / sum_k a_k n_k        a_k = weight of the voice, n_k = rows of device k

A device does not tell n_k: how many rows it has is private, and a number that a device may claim would buy weight. The
operator states it, in the server's own settings, where it is known from elsewhere: a contract, a meter, a register of
machines. A device that is not stated counts as the smallest that is, so nobody gains by being unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import RowWeighted, to_row_weights
from broker_server.rules.voice import Voice
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class SizeWeighted(RowWeighted):
    """`shares` are the sizes of devices by name, the largest 1; `unstated` is that of any other. Use `of`."""

    shares: Mapping[str, float]
    unstated: float

    card: ClassVar[Card] = Card(
        name="size-weighted",
        formula="sum n_k p_k / sum n_k, n_k = rows of device k, as the operator states them",
        source="McMahan et al. 2017 (FedAvg), algorithm 1, on soft labels",
        fails="under label skew, as the mean does; where a device lies that is stated large",
        needs=frozenset({Need.PUBLIC_SET, Need.SIZES}),
        promises=frozenset(Promise),
    )

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> SizeWeighted:
        """Return the rule for devices of these sizes; where none is stated all are alike."""
        least, most = min(sizes.values(), default=1), max(sizes.values(), default=1)
        return cls({device: size / most for device, size in sizes.items()}, least / most)

    def row_weights(self, voice: Voice) -> I64:
        share = self.shares.get(voice.device, self.unstated)
        return to_row_weights(np.full(len(voice.distances), share), voice)
