"""How long predictions take, stage by stage, in bins that never change: cheap to keep, ready for Prometheus.

A sample's time in a stage is that of the whole batch it went with: that is how long it waited for its answer.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """What happens to a sample, in order. Values are places in what `Latency` keeps."""

    WAIT = 0
    PREPROCESS = 1
    BACKBONE = 2
    TAIL = 3
    OUTPUT = 4


_FOLD_AT = 256
_FIRST_S = 8e-6
BOUNDS_S = tuple(_FIRST_S * 2.0**power for power in range(22))
"""Upper bounds of the bins, from 8 microseconds to 17 seconds, each twice the one before; one more bin has the rest."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bin (`BOUNDS_S`, then the rest), and the sum of all times."""

    counts: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile_s(self, share: float) -> float:
        """Return the upper bound of the bin up to which `share` of all times lie: 0 without any, inf in the last."""
        wanted, seen = share * self.count, 0
        for bound_s, count in zip((*BOUNDS_S, math.inf), self.counts, strict=True):
            seen += count
            if seen >= wanted and seen:
                return bound_s
        return 0.0


class Latency:
    """Histograms of every stage; any thread may write and read.

    Writing appends and no more: at a few microseconds a prediction the bins are found later, many at a time.
    """

    def __init__(self) -> None:
        self._folding = threading.Lock()
        self._fresh: deque[tuple[int, int, tuple[float, ...]]] = deque()
        self._counts = [[0] * (len(BOUNDS_S) + 1) for _ in Stage]
        self._sums_s = [0.0] * len(Stage)

    def record(self, begin: Stage, rows: int, *seconds: float) -> None:
        """Note that `rows` samples spent so many seconds in stage `begin` and, further numbers, in those after it."""
        self._fresh.append((begin.value, rows, seconds))
        if len(self._fresh) >= _FOLD_AT:
            self._fold()

    def histogram(self, stage: Stage) -> Histogram:
        self._fold()
        with self._folding:
            return Histogram(tuple(self._counts[stage.value]), self._sums_s[stage.value])

    def _fold(self) -> None:
        with self._folding:
            for _ in range(len(self._fresh)):
                begin, rows, seconds = self._fresh.popleft()
                for place, spent_s in enumerate(seconds, begin):
                    self._counts[place][_bin_of(spent_s)] += rows
                    self._sums_s[place] += rows * spent_s


def _bin_of(seconds: float) -> int:
    """The exponent of the number is the bin; a time on a bound falls, at most, one bin too high."""
    return min(max(math.frexp(seconds / _FIRST_S)[1], 0), len(BOUNDS_S))
