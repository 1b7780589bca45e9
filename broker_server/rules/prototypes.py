"""Class prototypes as in FedProto, Tan et al. 2022, equation 6: for each class the mean of the devices' mean features.

    C(y) = sum_{k speaks of y} a_k C_k(y) / sum_{k speaks of y} a_k        a_k = weight of the voice

A row is one feature of one class (`fd_protocol.prototypes`): on, off, or, last, unknown, which those say who have too
few rows of the class. They do not count; of a class that nobody speaks of the consensus is unknown. The paper weighs a
device by its rows of the class: a count is private, and a number that a device may claim would buy weight, so all who
speak of a class weigh alike, and measured it makes no difference. The printed equation divides by the number of devices
once more, which would shrink every prototype towards zero; the mean is meant.

The paper's loss pulls a *trainable* extractor's features to the prototypes. Ours is frozen, so that term has nothing to
move; `edge_agent.learning.prototype_ground` says what a device does with them instead, and what was measured stands in
docs/adr/0013-without-a-public-set.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.voice import Voice, normalise, weighted_sum
from fd_protocol.soft_labels import F32


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The last class of a row is that of those who cannot tell."""

    card: ClassVar[Card] = Card(
        name="prototypes",
        formula="mean of the mean features of each class, over those who have it",
        source="Tan et al. 2022 (FedProto), equations 3 and 6",
        fails="where devices have different backbones, or anyone lies; what one device alone has is told as it has it",
        needs=frozenset({Need.FEATURES}),
        promises=frozenset({Promise.HEARS_ONCE}),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        sums = weighted_sum(voices)
        sums[:, -1] = ~sums[:, :-1].any(axis=1)
        return normalise(sums)
