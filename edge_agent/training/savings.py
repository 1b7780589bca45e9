"""When a training under way is written down: every so many seconds, rarer where the flash has taken much today."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_agent.training.wear import Wear


class Savings:
    """Of one worker.

    Args:
        least_s: seconds between two, at least.
        wear: the device's count; None: no matter.
        clock: monotonic seconds.
    """

    def __init__(self, least_s: float, wear: Wear | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_s, self._wear, self._clock = least_s, wear, clock
        self._saved_at_s, self._interval_s = clock(), least_s

    def begin(self) -> None:
        """A training begins."""
        self._saved_at_s, self._interval_s = self._clock(), self._least_s

    def is_due(self, size_bytes: int) -> bool:
        """Whether to save so many bytes now."""
        if self._clock() - self._saved_at_s < self._interval_s:
            return False
        if self._wear is not None:
            self._interval_s = self._wear.checkpoint_interval_s(size_bytes, self._least_s)
        return self._clock() - self._saved_at_s >= self._interval_s

    def saved(self) -> None:
        self._saved_at_s = self._clock()
