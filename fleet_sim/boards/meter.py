"""What a device has spent, and what its battery holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet_sim.boards.terms import BoardTerms

_COMES_BACK_AT = 0.1
"""Of its capacity: a charge controller does not switch a board on for a second."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Energy in joules since the start: of one core computing, of the radio, and of being there."""

    compute_j: float = 0.0
    radio_j: float = 0.0
    idle_j: float = 0.0

    @property
    def total_j(self) -> float:
        return self.compute_j + self.radio_j + self.idle_j


@dataclass(slots=True)
class Meter:
    """Adds up; times are milliseconds of the simulated clock.

    Attributes:
        terms: of the device.
        since_ms: what it has drawn is counted from here on.
        spent: so far, up to the last `advance`.
        is_on: False while the battery is empty.
    """

    terms: BoardTerms
    since_ms: float
    spent: Spent = Spent()
    is_on: bool = True
    level_j: float = field(init=False)
    _at_ms: float = field(init=False)
    _drawn_j: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.level_j, self._at_ms = self.capacity_j, self.since_ms

    @property
    def capacity_j(self) -> float:
        return 3600 * self.terms.battery_wh

    @property
    def battery(self) -> float:
        """Share of the capacity that is left; NaN on mains."""
        return self.level_j / self.capacity_j if self.capacity_j else float("nan")

    def begin(self, now_ms: float) -> None:
        """The board was switched on only now."""
        self.since_ms = self._at_ms = now_ms

    def computed(self, ms: float) -> None:
        """One core was busy for so long."""
        extra_j = ms / 1000 * (self.terms.board.busy_w - self.terms.board.idle_w)
        self._draw(Spent(compute_j=extra_j))

    def transferred(self, ms: float) -> None:
        """The radio was busy for so long."""
        self._draw(Spent(radio_j=ms / 1000 * self.terms.wire.active_w))

    def advance(self, now_ms: float) -> None:
        """Let time pass; what was drawn since the last call leaves the battery, which is charged meanwhile."""
        seconds, self._at_ms = (now_ms - self._at_ms) / 1000, now_ms
        if self.is_on:
            self._draw(Spent(idle_j=seconds * self.terms.board.idle_w))
        if self.capacity_j:
            charged_j = self.level_j - self._drawn_j + seconds * self.terms.charge_w
            self.level_j = min(self.capacity_j, max(0.0, charged_j))
            self.is_on = self.level_j > 0 if self.is_on else self.battery >= _COMES_BACK_AT
        self._drawn_j = 0.0

    def _draw(self, more: Spent) -> None:
        spent = self.spent
        self.spent = Spent(spent.compute_j + more.compute_j, spent.radio_j + more.radio_j, spent.idle_j + more.idle_j)
        self._drawn_j += more.total_j
