"""What every rule is, and what some can do beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from broker_server.rules.card import Card
from broker_server.rules.voice import F64, WEIGHT_ONE, Voice, normalise, weighted_sum
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

ROW_WEIGHT_ONE = 1 << 24
"""The integer that stands for the largest weight of a row: 2^20 (a label) x 2^24 x 2^18 voices stay below 2^63."""


Weigher: TypeAlias = Callable[[Voice], I64]


class Rule(Protocol):
    """How a consensus is made. A rule is a value; its fields are its constants."""

    @property
    def card(self) -> Card:
        """What it needs and promises."""
        ...

    def consensus(self, voices: Iterable[Voice]) -> F32:
        """Return float32 [n, classes], rows summing to 1, bit for bit the same for any order of `voices`.

        Who promises `HEARS_ONCE` takes them from an iterator; others go over them again, and need a collection.

        Raises:
            UnheardError: no voice, one device twice, different shapes, or too many.
        """
        ...


@runtime_checkable
class Weighing(Protocol):
    """A rule whose consensus is a weighted mean of what was said."""

    def weigher(self, voices: Iterable[Voice]) -> Weigher:
        """Return what tells the weight of each row of a voice among `voices`, int64 [n]; only their ratios count."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What the rows of each voice weigh in a consensus, and those of all voices together: int64 [n]."""

    weigh: Weigher
    totals: I64


@runtime_checkable
class Scaled(Protocol):
    """A rule that knows, when it has heard the voices, what each weighs: they need not be heard again to tell."""

    def scaled(self, voices: Iterable[Voice]) -> tuple[F32, Scale]:
        """Return the consensus, and the weights by which it is the mean of what was said."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Rows of the slice whose labels the server knows: int64 [q] each. Devices know nothing of it."""

    rows: I64
    labels: I64

    def __len__(self) -> int:
        return len(self.rows)


@runtime_checkable
class Judging(Protocol):
    """A rule that weighs a device by how it has done, this round included; what it learns is the voices' `trust`."""

    def judge(self, voices: Iterable[Voice], known: Known) -> Mapping[str, I64]:
        """Return the trust of each device after what it says now, int64 [classes] in 1..WEIGHT_ONE.

        A device that is not among them keeps the trust that its voice has.
        """
        ...


@runtime_checkable
class Clustering(Protocol):
    """A rule that also makes a consensus for each cluster of like-minded devices. A device learns the nearest."""

    @property
    def most_clusters(self) -> int:
        """How many there may be, 2..MAX_CLUSTERS: blocks leave room for as many."""
        ...

    def clusters(self, voices: Iterable[Voice]) -> Sequence[F32]:
        """Return the consensus of each cluster, as `consensus` returns that of all; none where all are of one mind.

        Bit for bit the same for any order of `voices`. None of them tells what a single voice said.
        """
        ...


class RowWeighted:
    """z(x) = sum_k w_k(x) p_k(x) / sum_k w_k(x), where w_k(x) follows from the voice alone."""

    __slots__ = ()

    def row_weights(self, voice: Voice) -> I64:
        """Return what each row of a voice weighs: int64 [n] in 1..ROW_WEIGHT_ONE."""
        raise NotImplementedError

    def weigher(self, voices: Iterable[Voice]) -> Weigher:  # noqa: ARG002 - nobody's weight depends on others
        return self.row_weights

    def scaled(self, voices: Iterable[Voice]) -> tuple[F32, Scale]:
        totals = np.zeros(1, np.int64)

        def weights_of(voice: Voice) -> I64:
            nonlocal totals
            weights = self.row_weights(voice)
            totals = totals + weights
            return weights[:, None]

        labels = normalise(weighted_sum(voices, weights_of))
        return labels, Scale(self.row_weights, totals)

    def consensus(self, voices: Iterable[Voice]) -> F32:
        labels, _ = self.scaled(voices)
        return labels


def to_row_weights(shares: F64, voice: Voice) -> I64:
    """Return the integers of weights [n] in [0, 1], faded with the voice; none is 0."""
    faded = shares * (voice.weight / WEIGHT_ONE * ROW_WEIGHT_ONE)
    weights: I64 = np.maximum(1, np.rint(faded)).astype(np.int64)
    return weights


def scale_of(rule: Rule, hear: Callable[[], Iterable[Voice]]) -> Scale:
    """Return what voices weigh that are heard once more, or twice, to tell; `hear` begins to hear them."""
    weigh = weigher_of(rule, hear())
    return Scale(weigh, reduce(np.add, map(weigh, hear())))


def weigher_of(rule: Rule, voices: Iterable[Voice]) -> Weigher:
    """Return what tells how a rule weighs the rows of a voice; one that weighs nobody is taken to go by age."""
    return rule.weigher(voices) if isinstance(rule, Weighing) else by_age


def by_age(voice: Voice) -> I64:
    """Return the weight of the voice for each of its rows, int64 [n]."""
    return np.full(len(voice.distances), voice.weight, np.int64)
