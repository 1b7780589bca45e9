"""The boards of a simulated fleet: who computes how fast, who is there, who has power; and when something is due next.

    place = fleet.places[i]      where device i stands: its line, and what its jobs take
    fleet.begin_round(n)         draws who joins, leaves and stays away
    fleet.pass_time()            batteries run down, outages come and go
    fleet.next_ms()              when the next message or answer is due

Times are milliseconds of the simulated clock, rounded up to ticks, so that a large fleet has hardly more moments to
live through than a small one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_agent.jobs import Job
from fleet_sim.boards.line import Line
from fleet_sim.boards.meter import Meter, Spent
from fleet_sim.boards.outages import outages
from fleet_sim.boards.terms import Attendance, BoardTerms
from fleet_sim.boards.workload import Workload

LEAST_TICK_MS = 10
_DEVICES_PER_TICK_MS = 10
"""A tick is 10 ms up to 100 devices, 100 ms for a thousand."""
_STREAM = 10
"""Keeps these draws apart from others of the same seed."""


@dataclass(slots=True)
class Place:
    """Where a device stands.

    Attributes:
        terms: what it is made of.
        workload: what its jobs take.
        meter, line: what it spends, and its link.
        due_at: says when something that takes so many milliseconds from now will be done.
        slowdown: how many times as long as its board it computes.
        joins: the first round that it is there for.
        has_joined, has_left: whether it came, and whether it went for good.
        is_away: its link is down for the whole round.
        outage_ms: the outage that is, or the next one: begin and end.
        dark: how often its battery was empty.
    """

    terms: BoardTerms
    workload: Workload
    meter: Meter
    line: Line
    due_at: Callable[[float], float]
    slowdown: float
    joins: int
    outages: Iterator[tuple[float, float]]
    has_joined: bool = False
    has_left: bool = False
    is_away: bool = False
    outage_ms: tuple[float, float] = field(default=(math.inf, math.inf))
    dark: int = 0
    _busy_until_ms: float = field(init=False, default=-math.inf)

    @property
    def is_present(self) -> bool:
        """Whether the board stands there, with power or without."""
        return self.has_joined and not self.has_left

    @property
    def is_on(self) -> bool:
        return self.is_present and self.meter.is_on

    def done_at(self, job: Job, now_ms: float) -> float:
        """Return when the board has done `job`, which begins when those before it are done; its core draws power."""
        ms = self.slowdown * self.workload.milliseconds(job, self.terms.profile)
        self.meter.computed(ms)
        self._busy_until_ms = self.due_at(max(0.0, self._busy_until_ms - now_ms) + ms)
        return self._busy_until_ms

    def restart(self) -> None:
        """What the board was computing is lost."""
        self._busy_until_ms = -math.inf


class BoardFleet:
    """All places.

    Args:
        terms: device i has the i-th, modulo their number.
        attendance: who is there when.
        workloads: of each device.
        rounds: how many will be played.
        seed: of every draw.
        now_ms: the simulated clock.
    """

    def __init__(
        self,
        terms: Sequence[BoardTerms],
        attendance: Attendance,
        workloads: Sequence[Workload],
        *,
        rounds: int,
        seed: int,
        now_ms: Callable[[], float],
    ) -> None:
        devices = len(workloads)
        self.attendance, self._now_ms, self._began_ms = attendance, now_ms, now_ms()
        self._tick_ms = max(LEAST_TICK_MS, devices // _DEVICES_PER_TICK_MS)
        self._dice, dice = (np.random.default_rng([seed, _STREAM, part]) for part in range(2))
        self._due: list[float] = []
        slow = set(dice.permutation(devices)[: round(attendance.stragglers * devices)].tolist())
        late = set(dice.permutation(devices)[: round(attendance.late * devices)].tolist())
        joins = dice.integers(2, max(3, rounds + 1), devices).tolist()
        self.places = [
            self._place(
                terms[number % len(terms)],
                workloads[number],
                attendance.slowdown if number in slow else 1.0,
                joins[number] if number in late else 1,
                np.random.default_rng([seed, _STREAM, 2, number]),
            )
            for number in range(devices)
        ]
        self.round = 0
        self.begin_round(1)

    def _place(
        self, terms: BoardTerms, workload: Workload, slowdown: float, joins: int, rng: np.random.Generator
    ) -> Place:
        meter = Meter(terms, self._began_ms)
        line = Line(terms.wire, meter, self.due_at, self._now_ms)
        links = outages(terms.online, terms.outage_s, rng)
        place = Place(terms, workload, meter, line, self.due_at, slowdown, joins, links)
        self._next_outage(place)
        return place

    # Time.

    def due_at(self, ms: float) -> float:
        """Return when something that takes `ms` from now is done; the clock will stop there."""
        due = self._tick_ms * math.ceil((self._now_ms() + ms) / self._tick_ms)
        heapq.heappush(self._due, due)
        return due

    def next_ms(self) -> float:
        """Return when something is due next, later than now; infinity: nothing is under way."""
        while self._due and self._due[0] <= self._now_ms():
            heapq.heappop(self._due)
        return self._due[0] if self._due else math.inf

    def pass_time(self) -> None:
        """Let batteries run down and outages come and go, up to now."""
        now = self._now_ms()
        for place in self.places:
            if place.is_present and place.terms.battery_wh:
                was_on = place.meter.is_on
                place.meter.advance(now)
                place.dark += was_on and not place.meter.is_on
            while place.outage_ms[1] <= now:
                self._next_outage(place)
        self._set_lines()

    def _next_outage(self, place: Place) -> None:
        begin_s, end_s = next(place.outages, (math.inf, math.inf))
        place.outage_ms = self._began_ms + 1000 * begin_s, self._began_ms + 1000 * end_s

    # Attendance.

    def begin_round(self, number: int) -> None:
        """Draw who joins in round `number`, who has left after the one before, and who stays away from it."""
        now, count = self._now_ms(), len(self.places)
        away = set(self._dice.permutation(count)[: round(self.attendance.offline * count)].tolist())
        leaves = self._dice.random(count) < self.attendance.leave
        for index, place in enumerate(self.places):
            place.is_away = index in away
            if place.is_present and leaves[index]:
                place.meter.advance(now)
                place.has_left = True
            if not place.has_joined and number >= place.joins:
                place.meter.begin(now)
                place.has_joined = True
        self.round = number
        self._set_lines()

    def _set_lines(self) -> None:
        now = self._now_ms()
        for place in self.places:
            place.line.is_down = place.is_away or place.outage_ms[0] <= now < place.outage_ms[1]

    # What came of it.

    def seconds(self) -> float:
        """Return how long the fleet has been there."""
        return (self._now_ms() - self._began_ms) / 1000

    def spent(self) -> list[Spent]:
        """Return what every device has spent up to now."""
        for place in self.places:
            if place.is_present:
                place.meter.advance(self._now_ms())
        return [place.meter.spent for place in self.places]
