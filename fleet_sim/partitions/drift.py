"""Devices whose world changes while the federation runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64

_STREAM = 7
"""Keeps these draws apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What a device holds moves from round to round.

    A device's rows lie in a ring, class after class in an order of its own; a window moves along it, so that the class
    mix changes and old classes come back. A feature shift may grow at the same time.

    Attributes:
        window: share of its rows that a device holds at a time; 1 = all, always.
        cycle_rounds: rounds until the window is where it was.
        shift_rounds: rounds until a feature shift has its full strength; 0 = from the first.
    """

    window: float = 1.0
    cycle_rounds: int = 20
    shift_rounds: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.window <= 1 or self.cycle_rounds < 1 or self.shift_rounds < 0:
            raise InvalidValueError("window lies in (0, 1], cycle_rounds is at least 1, shift_rounds 0 or more")

    def rows(self, labels: I64, number: int, *, device: int, seed: int) -> I64:
        """Return which of a device's rows, whose classes are `labels`, it holds in round `number`; ascending.

        Rounds count from 1.
        """
        count = len(labels)
        if self.window == 1 or not count:
            return np.arange(count)
        rng = np.random.default_rng([seed, _STREAM, device])
        rank = rng.permutation(int(labels.max()) + 1)[labels]
        ring = np.lexsort((rng.random(count), rank))
        start = count * ((number - 1) % self.cycle_rounds) // self.cycle_rounds
        return np.sort(ring[(start + np.arange(math.ceil(self.window * count))) % count])

    def strength(self, number: int) -> float:
        """Return how much of a feature shift there is in round `number`, in 0..1."""
        return 1.0 if self.shift_rounds == 0 else min(1.0, (number - 1) / self.shift_rounds)
