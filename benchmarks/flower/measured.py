"""What both sides are measured by: the same gauges at the same moments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from gauges import proportional_mb, resident_mb, together, used_s

from fleet_sim.real.wire_meter import Traffic, WireMeter

T = TypeVar("T")
SAMPLE_S = 2.0
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Side:
    """Where to look: clients by name and pid in the same order, and the server's processes."""

    meter: WireMeter
    names: Sequence[str]
    clients: Sequence[int]
    server: Sequence[int]

    def mark(self) -> Mark:
        traffic = sum((self.meter.traffic(name) for name in self.names), Traffic())
        return Mark(time.monotonic(), traffic, used_s(self.clients), used_s(self.server))


@dataclass(frozen=True, slots=True)
class Mark:
    """Since the start: bytes of all clients, processor time of all clients and of the server."""

    at_s: float
    traffic: Traffic
    clients_s: float
    server_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one update: one client, one round. Bytes up and down, processor seconds of the client and of the server."""

    up: float
    down: float
    client_s: float
    server_s: float


@dataclass(frozen=True, slots=True)
class Played:
    """A federation that was played.

    Attributes:
        curve: accuracy on test in 0..1 after each round: of the shared model.
        clients_curve: of the mean client, where clients have models of their own.
        own: share of the clients' kept-back images that are right at the end.
        marks: the first when round 1 was over, be it of a federation of one round, the last when all were.
        rounds, clients: how many.
    """

    curve: tuple[float, ...]
    clients_curve: tuple[float, ...]
    own: float
    marks: tuple[Mark, Mark]
    rounds: int
    clients: int

    @property
    def further(self) -> Cost:
        """Of an update after the first round: what a federation costs that goes on."""
        first, last = self.marks
        return _cost(first, last, (self.rounds - 1) * self.clients)

    def net(self, idle: Idle) -> Cost:
        """Return `further` without what client and server use while they wait: how long that is, is the machine's."""
        cost, days = self.further, self.round_s / 86_400
        return Cost(
            cost.up - 1e6 * idle.up_mb_a_day * days,
            cost.down - 1e6 * idle.down_mb_a_day * days,
            cost.client_s - idle.client_s_a_day * days,
            cost.server_s - idle.server_s_a_day * days / self.clients,
        )

    @property
    def first(self) -> Cost:
        """Of a client, from its start to the end of round 1."""
        zero = Mark(0.0, Traffic(), 0.0, 0.0)
        return _cost(zero, self.marks[0], self.clients)

    @property
    def round_s(self) -> float:
        return (self.marks[1].at_s - self.marks[0].at_s) / (self.rounds - 1)


def _cost(before: Mark, after: Mark, updates: int) -> Cost:
    traffic = after.traffic - before.traffic
    return Cost(
        traffic.up / updates,
        traffic.down / updates,
        (after.clients_s - before.clients_s) / updates,
        (after.server_s - before.server_s) / updates,
    )


@dataclass(frozen=True, slots=True)
class Idle:
    """A client that has nothing to do, and its server, over some minutes. Memory: medians of the whole tree, in MB."""

    rss_mb: float
    pss_mb: float
    server_rss_mb: float
    up_mb_a_day: float
    down_mb_a_day: float
    client_s_a_day: float
    server_s_a_day: float


def watch_idle(side: Side, minutes: float) -> Idle:
    """Look at one client that waits, after it has settled."""
    time.sleep(SETTLE_S)
    begin = side.mark()
    samples = []
    while time.monotonic() < begin.at_s + 60 * minutes:
        time.sleep(SAMPLE_S)
        samples.append(
            (
                together(side.clients, resident_mb),
                together(side.clients, proportional_mb),
                together(side.server, resident_mb),
            )
        )
    end = side.mark()
    days = (end.at_s - begin.at_s) / 86_400
    traffic = end.traffic - begin.traffic
    rss, pss, server = (median(values) for values in zip(*samples, strict=True))
    return Idle(
        rss,
        pss,
        server,
        traffic.up / 1e6 / days,
        traffic.down / 1e6 / days,
        (end.clients_s - begin.clients_s) / days,
        (end.server_s - begin.server_s) / days,
    )


@dataclass(frozen=True, slots=True)
class Alone:
    """One client and its server: a few rounds of the CNN, the most memory in them, and what it takes to be idle."""

    played: Played
    idle: Idle
    peak_pss_mb: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """A server that was killed inside a round and started again at once.

    Attributes:
        fate: of the round, or run, that was under way.
        next_round_s: from the restart, or from when a person has submitted again what has failed, to the next finished
            round.
        lost: what was lost, in words.
        actions: what a person had to do beyond starting the server.
    """

    fate: str
    next_round_s: float
    lost: str
    actions: str


def revived(kind: type[T], item: Any) -> T:
    """Return the value of a kind from here, or of its parts, that `dataclasses.asdict` and JSON made `item` of."""
    if isinstance(item, list):
        return tuple(revived(Mark, one) if isinstance(one, dict) else one for one in item)  # type: ignore[return-value]
    if not isinstance(item, dict):
        return item  # type: ignore[no-any-return]
    parts = {"traffic": Traffic, "idle": Idle, "played": Played}
    return kind(**{key: revived(parts.get(key, Mark), value) for key, value in item.items()})
