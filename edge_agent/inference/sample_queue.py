"""Samples that wait for the model. A device that is too slow drops the oldest: what counts is what is seen now."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class SampleQueue(Generic[T]):
    """At most `most` items, in order; any thread may put and take.

    Attributes:
        dropped: items that nobody took in time.
    """

    def __init__(self, most: int) -> None:
        self._items: deque[T] = deque()
        self._most = most
        self._has_come = threading.Condition()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item, in the place of the oldest if there is no room."""
        with self._has_come:
            if len(self._items) == self._most:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._has_come.notify()

    def wake(self) -> None:
        """End a wait, with nothing."""
        with self._has_come:
            self._has_come.notify_all()

    def take(self, most: int, timeout_s: float) -> list[T]:
        """Return up to `most` items, the oldest first; none if none came within `timeout_s`.

        It waits for the first and never for another: a batch grows when samples come faster than the model is, and
        waiting for more would only make the first one late.
        """
        with self._has_come:
            if not self._items:
                self._has_come.wait(timeout_s)
            return [self._items.popleft() for _ in range(min(most, len(self._items)))]
