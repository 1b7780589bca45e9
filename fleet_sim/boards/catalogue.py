"""Boards and links that are known, each with the source of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class Board:
    """What a board draws; how fast it computes says `model_export.planning.profiles`, under the same name.

    Attributes:
        name: in scenarios.
        idle_w: power when it waits, radio included.
        busy_w: power when one core computes.
        source: where the figures come from.
    """

    name: str
    idle_w: float
    busy_w: float
    source: str


@dataclass(frozen=True, slots=True)
class Link:
    """What carries messages between a device and the broker.

    Attributes:
        name: in scenarios.
        up_kbit_s, down_kbit_s: rates of payload, in 1000 bit per second.
        latency_ms: of each message, one way.
        active_w: power while it sends or receives, above the board's own.
        source: where the figures come from.
    """

    name: str
    up_kbit_s: float
    down_kbit_s: float
    latency_ms: float
    active_w: float
    source: str

    def up_ms(self, count: int) -> float:
        """Return how long a message of `count` bytes takes to the broker."""
        return self.latency_ms + 8 * count / self.up_kbit_s

    def down_ms(self, count: int) -> float:
        """Return how long a message of `count` bytes takes from the broker."""
        return self.latency_ms + 8 * count / self.down_kbit_s


BOARDS: Mapping[str, Board] = {
    board.name: board
    for board in (
        Board(
            "pi-zero-2w",
            0.6,
            1.1,
            "idle: 120 mA at 5 V (CNX Software 2021, with an Otii Arc); one core: a quarter of what 1.4 W more than a "
            "Zero W under stress adds (A. Jacobs 2021), rounded up: an estimate",
        ),
        Board(
            "pi-4",
            2.3,
            3.0,
            "idle 2.2 to 2.3 W, high load 5.1 to 5.4 W (chipwired.com, two meters); one core: a quarter of the "
            "difference: an estimate",
        ),
        Board("pi-5", 2.7, 4.3, "estimate: the Pi 4's figures by the ratio of the boards' recommended supplies"),
        Board(
            "orin-nano",
            4.0,
            5.5,
            "estimate between 2.6 W of a stripped carrier board (NVIDIA forum 348662, Joulescope) and the 7 W mode",
        ),
    )
}

LINKS: Mapping[str, Link] = {
    link.name: link
    for link in (
        Link("ethernet", 90_000, 90_000, 1, 0.2, "Fast Ethernet's payload rate; power: estimate"),
        Link(
            "wifi",
            20_000,
            20_000,
            5,
            0.5,
            "estimate: a busy 2.4 GHz network; power: 0.5 W less without it (chipwired.com)",
        ),
        Link(
            "lte",
            5_000,
            20_000,
            50,
            2.0,
            "estimate: LTE Cat 1 at half of its 5 and 10 Mbit/s and above; power: estimate",
        ),
        Link(
            "lte-m",
            300,
            300,
            100,
            0.8,
            "half-duplex LTE-M1 carries 300 to 375 kbit/s (3GPP release 13); power: estimate",
        ),
        Link("nb-iot", 20, 25, 1_600, 0.7, "NB-IoT of release 13: 20 and 25 kbit/s, 1.6 s to 10 s; power: estimate"),
    )
}


def board_named(name: str) -> Board:
    """Return the board.

    Raises:
        InvalidValueError: there is none of this name.
    """
    if name not in BOARDS:
        raise InvalidValueError(f"board {name!r} is not one of {', '.join(BOARDS)}")
    return BOARDS[name]


def link_named(name: str) -> Link:
    """Return the link.

    Raises:
        InvalidValueError: there is none of this name.
    """
    if name not in LINKS:
        raise InvalidValueError(f"link {name!r} is not one of {', '.join(LINKS)}")
    return LINKS[name]
