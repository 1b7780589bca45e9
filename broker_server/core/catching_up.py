"""Has the server heard by now what was kept for it while it was away?

    away --connection--> hears what broker and devices kept for it --quiet, or long enough--> has heard

A round whose deadline passed meanwhile is not closed over contributions that were sent in time and lie at the broker
(docs/adr/0012). Nothing in MQTT says that a queue is empty, so quiet must do; a fleet that never is quiet is not waited
for without end.

What is deliberately absent: whether a message was sent in time. The round says what it takes while it is open.
"""

from __future__ import annotations

QUIET_MS = 2_000
"""So long nothing comes from a broker that has nothing more."""
MOST_MS = 60_000
"""Longest after the connection that a round may be kept open for what still comes."""


class CatchingUp:
    """One server's; every time is the server's own, in milliseconds."""

    def __init__(self) -> None:
        self._up_ms: int | None = None
        self._last_ms = 0

    def come_up(self, at_ms: int) -> None:
        """The connection stands."""
        self._up_ms = self._last_ms = at_ms

    def go_down(self) -> None:
        self._up_ms = None

    def hear(self, at_ms: int) -> None:
        """A message has come; once all was heard, further ones are news and change nothing."""
        if self.done_ms is not None and at_ms < self.done_ms:
            self._last_ms = at_ms

    @property
    def done_ms(self) -> int | None:
        """From when on all is heard, if nothing more comes; None: not before there is a connection."""
        return None if self._up_ms is None else min(self._last_ms + QUIET_MS, self._up_ms + MOST_MS)

    def look(self, at_ms: int) -> None:
        """Take note of the time: where the clock was set back, the wait begins anew."""
        if self._up_ms is not None and at_ms < self._up_ms:
            self.come_up(at_ms)

    def has_heard(self, at_ms: int) -> bool:
        """Return whether all that was kept is here by now."""
        return self.done_ms is not None and at_ms >= self.done_ms
