"""A device's link while it carries messages: one at a time in each direction, each for as long as its bytes take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet_sim.boards.catalogue import Link
from fleet_sim.boards.meter import Meter


@dataclass(slots=True)
class Line:
    """A `fleet_sim.bus.link.Line`.

    Attributes:
        link: how fast.
        meter: pays for the radio.
        due_at: says when something that takes so many milliseconds from now will be done.
        now_ms: the simulated clock.
        is_down: nothing crosses, and what was on its way is lost.
    """

    link: Link
    meter: Meter
    due_at: Callable[[float], float]
    now_ms: Callable[[], float]
    is_down: bool = False
    _up_until_ms: float | None = field(init=False, default=None)
    _down_until_ms: float | None = field(init=False, default=None)

    def carried_up(self, count: int) -> bool:
        """Whether the message of `count` bytes that stands first has reached the broker by now."""
        if self._up_until_ms is None:
            self._up_until_ms = self._begin(self.link.up_ms(count))
        if self.now_ms() < self._up_until_ms:
            return False
        self._up_until_ms = None
        return True

    def carried_down(self, count: int) -> bool:
        """Whether the message of `count` bytes that stands first has reached the device by now."""
        if self._down_until_ms is None:
            self._down_until_ms = self._begin(self.link.down_ms(count))
        if self.now_ms() < self._down_until_ms:
            return False
        self._down_until_ms = None
        return True

    def interrupt(self) -> None:
        """What was on its way is lost, and begins anew."""
        self._up_until_ms = self._down_until_ms = None

    def _begin(self, ms: float) -> float:
        self.meter.transferred(ms)
        return self.due_at(ms)
