"""Is the student better than the release that the fleet runs? A paired test on the release canaries.

Both models answer the same labelled probes, so only the probes count on which one is right and the other wrong:

    gained  the student is right, the release wrong         lost  the other way round
    p = P(X >= gained), X ~ Binomial(gained + lost, 1/2)    exact McNemar test, one-sided (McNemar 1947)

Better means p at most `level`, and (gained - lost) / n at least `margin`: what is sure but of no use to anyone is not
sent to a fleet. Unpaired, 200 canaries have a standard error of 2.5 to 3.5 points and could tell nothing.

The canaries are disjoint from those that earn trust. A gate that is asked after every round is asked many times: at
level 0.05 one of twenty equal students passes, and costs its bytes; `margin` bounds what that can hide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError

Hits = npt.NDArray[np.bool_]
"""Of each release canary, whether a model is right: [n]."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found; `gain` in 0..1 of the canaries, negative where the student is worse."""

    gained: int
    lost: int
    gain: float
    p: float
    is_better: bool


@dataclass(frozen=True, slots=True)
class ReleaseGate:
    """When a student is released.

    Attributes:
        margin: least gain in accuracy, 0..1.
        level: of the test.
    """

    margin: float = 0.01
    level: float = 0.05

    def __post_init__(self) -> None:
        if not (0.0 <= self.margin < 1.0 and 0.0 < self.level <= 0.5):
            raise InvalidValueError("margin lies in [0, 1), level in (0, 0.5]")

    def judge(self, released: Hits, student: Hits) -> Verdict:
        """Return whether `student` is better than `released`.

        Raises:
            InvalidValueError: they answered different canaries, or none.
        """
        if released.shape != student.shape or not len(student):
            raise InvalidValueError(f"paired answers are {released.shape} and {student.shape}")
        gained, lost = int((student & ~released).sum()), int((released & ~student).sum())
        gain, p = (gained - lost) / len(student), sign_test(gained, lost)
        return Verdict(gained, lost, gain, p, p <= self.level and gain >= self.margin)


def sign_test(gained: int, lost: int) -> float:
    """Return the probability of at least `gained` heads in `gained + lost` throws of a fair coin."""
    throws = gained + lost
    return sum(math.comb(throws, heads) for heads in range(gained, throws + 1)) / (1 << throws)
