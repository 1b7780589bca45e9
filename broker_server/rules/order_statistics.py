"""Robust means of each cell by itself, Yin et al. 2018, definitions 1 and 2; for soft labels Roux et al. 2025.

    median         z(c) = median of p_k(c), the mean of the two middle ones where they differ
    trimmed mean   z(c) = mean of p_k(c) without the share b at either end

then rows are divided by their sums. A voice counts by its weight: the ends are cut by weight, through a voice where
need be. Both are exact on 256 steps of sqrt(p), in memory that does not grow with the voices (`histograms`).

They believe that the honest agree. Under label skew the few that know a class are the outliers, and are cut off:
measured on MNIST at Dirichlet 0.1 without any attacker, mean 84.7 %, median 40.7 %, a trim of 40 % 44.3 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.card import Card, Promise
from broker_server.rules.histograms import I32, SQUARES, by_cell
from broker_server.rules.voice import Voice
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

_FAILS = "under label skew, without any attacker: honest minority experts are the outliers"


@dataclass(frozen=True, slots=True)
class Median:
    """Coordinate-wise."""

    card: ClassVar[Card] = Card(
        name="median",
        formula="median of p_k class by class, rows normalised",
        source="Yin et al. 2018, definition 1",
        fails=_FAILS,
        promises=frozenset({Promise.HEARS_ONCE, Promise.UNANIMITY}),
        breakdown=0.5,
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        return by_cell(voices, _medians)


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """Coordinate-wise; `trim` is b, below 0.5."""

    trim: float

    @property
    def card(self) -> Card:
        return Card(
            name="trimmed-mean",
            formula="mean of p_k class by class without the share b at either end, rows normalised",
            source="Yin et al. 2018, definition 2",
            fails=_FAILS,
            promises=frozenset({Promise.HEARS_ONCE, Promise.UNANIMITY}),
            breakdown=self.trim,
        )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        return by_cell(voices, self._means)

    def _means(self, cumulated: I32) -> I64:
        """The sum over what is kept, by parts; every cell keeps the same weight, and rows are normalised."""
        total = int(cumulated[0, -1])
        cut = int(self.trim * total)
        kept_up_to = np.clip(cumulated[:, :-1], cut, total - cut).astype(np.int64)
        sums: I64 = (total - cut) * SQUARES[-1] - kept_up_to @ np.diff(SQUARES)
        return sums


def _medians(cumulated: I32) -> I64:
    """Twice the median: the first value that has half of the weight up to it, and the first that has more."""
    beyond = cumulated[0, -1] - cumulated
    twice: I64 = SQUARES[(cumulated >= beyond).argmax(axis=1)] + SQUARES[(cumulated > beyond).argmax(axis=1)]
    return twice
