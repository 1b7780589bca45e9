"""The last few predictions in memory, numbered, for whoever asks the local API."""

from __future__ import annotations

import threading
from collections import deque

from edge_agent.inference.seams import LivePrediction

MOST = 200


class Recent:
    """Keeps the last predictions; an `Output`. Numbers count from 1 and never go back while the worker lives."""

    name = "recent"

    def __init__(self, most: int = MOST) -> None:
        self._kept: deque[LivePrediction] = deque(maxlen=most)
        self._count = 0
        self._has_come = threading.Condition()

    def say(self, prediction: LivePrediction) -> None:
        with self._has_come:
            self._kept.append(prediction)
            self._count += 1
            self._has_come.notify_all()

    def after(self, number: int, timeout_s: float = 0.0) -> list[tuple[int, LivePrediction]]:
        """Return those with a higher number that are still here, the oldest first; wait for one if there is none.

        A number from before a restart is higher than all: it counts as none.
        """
        with self._has_come:
            if number > self._count:
                number = 0
            if number == self._count:
                self._has_come.wait(timeout_s)
            first = self._count - len(self._kept) + 1
            return [(place, one) for place, one in enumerate(self._kept, first) if place > number]

    @property
    def last(self) -> LivePrediction | None:
        with self._has_come:
            return self._kept[-1] if self._kept else None

    def facts(self) -> dict[str, object]:
        return {"written": self._count}

    def close(self) -> None:
        """Wake whoever waits."""
        with self._has_come:
            self._has_come.notify_all()
