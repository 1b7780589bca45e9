"""A part of every day: from a time on the clock to another."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day in local time, from its first minute to before its last; it may go past midnight."""

    start_minute: int
    end_minute: int

    @classmethod
    def parse(cls, text: str) -> Window | None:
        """Return what "22:00-06:00" means; None: empty, all day.

        Raises:
            InvalidValueError: it means nothing.
        """
        if not text:
            return None
        found = _WINDOW.fullmatch(text)
        if found is None:
            raise InvalidValueError(f"window {text!r} is not written as 22:00-06:00")
        hours_from, minutes_from, hours_to, minutes_to = map(int, found.groups())
        window = cls(60 * hours_from + minutes_from, 60 * hours_to + minutes_to)
        require(window.start_minute != window.end_minute, f"window {text!r} has no minute; leave it empty for all day")
        return window

    def holds(self, minute: int) -> bool:
        """Whether `minute` of the day, 0 to 1439, lies in it."""
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute
