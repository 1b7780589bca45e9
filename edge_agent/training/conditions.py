"""May this device train now? A reading of the machine and the owner's limits -> yes, or the word for why not.

    window     not in the part of the day that is for it
    clock      there is a window, and the clock has never been set
    battery    on battery, and the charge is low
    heat       a thermal zone is above the limit, or has been and is not yet cool enough

What is deliberately absent: where a reading comes from (`sensors`), waiting (`pace`), CPU share, which only slows down.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.training.window import Window

WINDOW, CLOCK, BATTERY, HEAT = "window", "clock", "battery", "heat"
REASONS = (WINDOW, CLOCK, BATTERY, HEAT)


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine at a moment; None where it does not tell.

    Attributes:
        hottest_c: the hottest thermal zone, in degrees Celsius.
        is_on_mains: whether power comes in; a machine without a battery is.
        battery_percent: its charge.
        minute: of the day in local time; None: the clock has not been set.
    """

    hottest_c: float | None = None
    is_on_mains: bool = True
    battery_percent: float | None = None
    minute: int | None = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The owner's, as far as a reading decides."""

    window: Window | None = None
    max_c: float = 0.0
    resume_below_c: float = 0.0
    battery_min_percent: float = 0.0

    def obstacle(self, reading: Reading, before: str = "") -> str:
        """Return the word for why training waits; empty: it may go on.

        Args:
            reading: of the machine now.
            before: the word of the last reading: what was too hot must cool down further than to the limit.
        """
        if self.window is not None and reading.minute is None:
            return CLOCK
        if self.window is not None and reading.minute is not None and not self.window.holds(reading.minute):
            return WINDOW
        if self._is_low(reading):
            return BATTERY
        return HEAT if self._is_hot(reading, before) else ""

    def _is_low(self, reading: Reading) -> bool:
        if reading.is_on_mains or reading.battery_percent is None or not self.battery_min_percent:
            return False
        # A battery is never above 100 %: that limit means mains alone.
        return self.battery_min_percent >= 100 or reading.battery_percent < self.battery_min_percent

    def _is_hot(self, reading: Reading, before: str) -> bool:
        if reading.hottest_c is None or not self.max_c:
            return False
        limit_c = self.max_c - self.resume_below_c if before == HEAT else self.max_c
        return reading.hottest_c > limit_c
