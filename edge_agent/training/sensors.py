"""What Linux tells of heat, power and the time of day.

    /sys/class/thermal/thermal_zone*/temp               millidegrees; a zone that cannot be read is left out
    /sys/class/power_supply/*/{type,scope,online,capacity,status}

Traps: zones of modems and Wi-Fi cards answer with an error while the card sleeps; the battery of a mouse is a power
supply too (scope "Device"); a USB charger is type "USB"; some boards have a battery and no entry for the charger, and
then only the battery's own status tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.training.conditions import Reading

SYSFS = Path("/sys")
SET_SINCE_S = 1_735_689_600
"""2025-01-01: a clock before this has not been set since the board got its power."""
_INSANE_C = 150.0
"""Zones without a sensor report such values, or far below freezing."""


def clock_is_set(utc_s: float) -> bool:
    """Whether a clock shows a time at which this program existed."""
    return utc_s >= SET_SINCE_S


def local_minute(utc_s: float) -> int:
    """Return the minute of the day, 0 to 1439, in the machine's time zone."""
    local = time.localtime(utc_s)
    return 60 * local.tm_hour + local.tm_min


@dataclass(frozen=True, slots=True)
class Sensors:
    """The machine's.

    Attributes:
        root: of sysfs.
        clock: UTC seconds.
        minute_of: UTC seconds -> minute of the day where the device is.
    """

    root: Path = SYSFS
    clock: Callable[[], float] = time.time
    minute_of: Callable[[float], int] = local_minute

    def read(self) -> Reading:
        batteries, now_s = list(self._batteries()), self.clock()
        charges = [charge for supply in batteries if (charge := _number(supply / "capacity")) is not None]
        return Reading(
            hottest_c=max(self._zones(), default=None),
            is_on_mains=self._is_on_mains(batteries),
            battery_percent=min(charges, default=None),
            minute=self.minute_of(now_s) if clock_is_set(now_s) else None,
        )

    def _zones(self) -> Iterator[float]:
        for zone in sorted(self.root.glob("class/thermal/thermal_zone*")):
            millidegrees = _number(zone / "temp")
            if millidegrees is not None and abs(millidegrees) < 1000 * _INSANE_C:
                yield millidegrees / 1000

    def _supplies(self) -> Iterator[Path]:
        for supply in sorted(self.root.glob("class/power_supply/*")):
            if _word(supply / "scope") != "Device":
                yield supply

    def _batteries(self) -> Iterator[Path]:
        return (supply for supply in self._supplies() if _word(supply / "type") == "Battery")

    def _is_on_mains(self, batteries: list[Path]) -> bool:
        if not batteries:
            return True
        chargers = [supply for supply in self._supplies() if supply not in batteries]
        if any(_number(charger / "online") for charger in chargers):
            return True
        return all(_word(battery / "status") in ("Charging", "Full", "Not charging") for battery in batteries)


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_word(path))
    except ValueError:
        return None
