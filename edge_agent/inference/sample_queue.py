"""Samples that wait for the model. A device that is too slow drops the oldest: what counts is what is seen now.

A source that has all of its samples already, such as a folder, waits for room instead, and none of it is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.2
"""Between two looks of a source that waits for room at whether it should stop."""


class SampleQueue(Generic[T]):
    """At most `most` items, in order; any thread may put and take.

    Attributes:
        dropped: items that nobody took in time.
    """

    def __init__(self, most: int) -> None:
        self._items: deque[tuple[T, bool]] = deque()
        self._most = most
        self._has_changed = threading.Condition()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item, in the place of the oldest that may be dropped if there is no room."""
        with self._has_changed:
            if len(self._items) == self._most:
                self.dropped += 1
                oldest = next((place for place, (_, is_kept) in enumerate(self._items) if not is_kept), None)
                if oldest is None:
                    return
                del self._items[oldest]
            self._items.append((item, False))
            self._has_changed.notify_all()

    def put_when_room(self, item: T, stop: threading.Event) -> None:
        """Add an item once there is room; it is never dropped for another. After `stop` it is not added."""
        with self._has_changed:
            while len(self._items) == self._most and not stop.is_set():
                self._has_changed.wait(_LOOK_S)
            if not stop.is_set():
                self._items.append((item, True))
                self._has_changed.notify_all()

    def wake(self) -> None:
        """End a wait, with nothing."""
        with self._has_changed:
            self._has_changed.notify_all()

    def take(self, most: int, timeout_s: float) -> list[T]:
        """Return up to `most` items, the oldest first; none if none came within `timeout_s`.

        It waits for the first and never for another: a batch grows when samples come faster than the model is, and
        waiting for more would only make the first one late.
        """
        with self._has_changed:
            if not self._items:
                self._has_changed.wait(timeout_s)
            taken = [self._items.popleft()[0] for _ in range(min(most, len(self._items)))]
            self._has_changed.notify_all()
            return taken
