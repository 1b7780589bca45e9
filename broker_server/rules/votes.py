"""Votes: what a device says of a probe is one class, the first of its likeliest.

    majority   z = 1 for the class with most votes; the winners of a tie share it
    weighted   z(c) = sum of the confidences p_k(c) of those who vote c / sum of all confidences

Majority: FedCT (Abourayya et al. 2025) and TallyTrain (2026), whose devices send nothing but votes: codec `top-1` sends
as little. Weighted is the soft form: a vote counts as much as its device is sure, and what the minority says stays.

Both collapse from a cold start under label skew, where most devices do not know a probe and guess alike: by how much
stands in docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.voice import Voice, claims_of, heard, normalise
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """Hard labels."""

    card: ClassVar[Card] = Card(
        name="majority-vote",
        formula="1 for the class that most devices hold likeliest",
        source="Abourayya et al. 2025 (FedCT); TallyTrain 2026",
        fails="from a cold start under label skew: most devices guess, and guess alike",
        promises=frozenset({Promise.HEARS_ONCE}),
        breakdown=0.5,
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        votes = _counted(voices, by_confidence=False)
        return normalise((votes == votes.max(axis=1, keepdims=True)).astype(np.int64))


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Soft labels of hard votes."""

    card: ClassVar[Card] = Card(
        name="weighted-vote",
        formula="share of each class in the votes, a vote as much as its device is sure",
        source="votes of FedCT by confidence; ours",
        fails="from a cold start under label skew, as a majority does: what devices hold second likeliest is lost",
        promises=frozenset({Promise.HEARS_ONCE}),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        return normalise(_counted(voices, by_confidence=True))


def _counted(voices: Iterable[Voice], *, by_confidence: bool) -> I64:
    """Return the weight of all votes for each class, int64 [n, classes]."""
    votes: I64 | None = None
    for voice in heard(voices):
        if votes is None:
            votes, rows = np.zeros_like(voice.integers), np.arange(len(voice.integers))
        claims = claims_of(voice)
        votes[rows, claims] += voice.weight * (voice.integers[rows, claims] if by_confidence else 1)
    assert votes is not None
    return votes
