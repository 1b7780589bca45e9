"""The guard: when new weights are put back.

A private hold-out has only the classes of its device. Keeping the best weights on it would refuse most of what the
federation teaches (measured: 82 to 91 % of good updates, 32 points of accuracy; docs/adr/0003-one-round.md), so weights
go back only where they fall clearly below the last confirmed release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fd_protocol.schema import keyed

STANDARD_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Score:
    """How many of a hold-out's rows a model gets right."""

    correct: int = keyed(1)
    rows: int = keyed(2)

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.rows:
            raise InvalidValueError(f"{self.correct} of {self.rows} rows cannot be right")

    @property
    def accuracy(self) -> float:
        """0 without rows."""
        return self.correct / self.rows if self.rows else 0.0

    @property
    def standard_error(self) -> float:
        """Of the accuracy, by Agresti and Coull (1998): two rows more on either side, so that it is never zero."""
        rows = self.rows + 4
        share = (self.correct + 2) / rows
        return math.sqrt(share * (1 - share) / rows)


def is_acceptable(score: Score, release: Score) -> bool:
    """Whether new weights may stay: not below the release's score by more than two standard errors of it."""
    return score.accuracy >= release.accuracy - STANDARD_ERRORS * release.standard_error
