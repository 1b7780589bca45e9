"""When a device may train and what that may use: the section [training] of its settings.

All of it is what the owner grants: a server may ask for less, never for more.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.training.conditions import Limits
from edge_agent.training.window import Window
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require
from fd_runtime.remote_fields import remotely

_DAY = 24 * 60
_LEAST_SHARE = 0.01
"""With less, a device would sleep for minutes after each step, and answer no round meanwhile."""


def _at_most(value: float, own: float) -> bool:
    """Where 0 is no bound."""
    return own == 0 or 0 < value <= own


def _at_least(value: float, own: float) -> bool:
    return value >= own


def _inside(value: str, own: str) -> bool:
    """Every minute of a window lies in the owner's; text that is none is told where the settings are made."""
    if not own or value == own:
        return True
    outer = Window.parse(own)
    try:
        inner = Window.parse(value)
    except InvalidValueError:
        return True
    return inner is not None and outer is not None and all(outer.holds(one) for one in range(_DAY) if inner.holds(one))


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Budgets of training, looked at between two steps. Answers to rounds and predictions are not held back by them.

    Attributes:
        memory_mb: most of tensors in a step; where a batch needs more, steps have fewer rows. 0 = no bound.
        max_c: the hottest thermal zone at which training goes on; 0 = whatever the heat.
        resume_below_c: once it was too hot, how many degrees below `max_c` it must get.
        battery_min_percent: on battery, the charge below which training waits; 100 = only on mains.
        cpu_share: share of one processor's time that training takes, in [0.01, 1].
        window: part of the day in which training goes on, local time, such as "22:00-06:00"; empty = all day.
        checkpoint_s: seconds of training that a power cut may cost; more where flash wear asks for it.
        flash_mb_per_day: what this device may write to its disk; as it comes near, checkpoints get rarer. 0 = no bound.
        data_mb_per_month: what this device may send and receive; past it, it takes no part in rounds. 0 = no bound.
    """

    memory_mb: float = remotely(64.0, restart="worker", is_within=_at_most)
    max_c: float = remotely(80.0, restart="agent", is_within=_at_most)
    resume_below_c: float = remotely(5.0, restart="agent", is_within=_at_least)
    battery_min_percent: float = remotely(50.0, restart="agent", is_within=_at_least)
    cpu_share: float = remotely(1.0, restart="worker", is_within=_at_most)
    window: str = remotely("", restart="agent", is_within=_inside)
    checkpoint_s: float = remotely(30.0, restart="worker", is_within=_at_least)
    flash_mb_per_day: float = remotely(200.0, restart="worker", is_within=_at_most)
    data_mb_per_month: float = remotely(0.0, restart="agent", is_within=_at_most)

    def __post_init__(self) -> None:
        bounds = (self.memory_mb, self.max_c, self.resume_below_c, self.flash_mb_per_day, self.data_mb_per_month)
        require(min(bounds) >= 0, "memory_mb, max_c, resume_below_c and the bounds are not negative")
        require(0 <= self.battery_min_percent <= 100, "battery_min_percent lies in 0..100")
        require(_LEAST_SHARE <= self.cpu_share <= 1, f"cpu_share lies in [{_LEAST_SHARE}, 1]")
        require(self.checkpoint_s > 0, "checkpoint_s is above 0")
        Window.parse(self.window)

    def limits(self) -> Limits:
        """Return what of this a reading of the machine decides."""
        return Limits(Window.parse(self.window), self.max_c, self.resume_below_c, self.battery_min_percent)
