"""Scenario keys: what devices are made of, and who is there when."""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fleet_sim.boards.catalogue import Board, Link, board_named, link_named
from model_export.planning.profiles import DeviceProfile, profile_of


@dataclass(frozen=True, slots=True)
class BoardTerms:
    """A kind of device.

    Attributes:
        name: of the board.
        link: that carries its messages.
        online: share of the time that its link works, in the long run.
        outage_s: mean length of an outage.
        battery_wh: capacity, full at the start; 0 = mains.
        charge_w: what charges the battery, on average; a device whose battery is empty comes back at 10 %.
    """

    name: str = "pi-4"
    link: str = "wifi"
    online: float = 1.0
    outage_s: float = 600.0
    battery_wh: float = 0.0
    charge_w: float = 0.0

    def __post_init__(self) -> None:
        board_named(self.name)
        link_named(self.link)
        if not 0 < self.online <= 1 or self.outage_s <= 0:
            raise InvalidValueError("online lies in (0, 1], outage_s is above 0")
        if min(self.battery_wh, self.charge_w) < 0 or (self.charge_w and not self.battery_wh):
            raise InvalidValueError("battery_wh and charge_w are 0 or more; what charges needs a battery")

    @property
    def board(self) -> Board:
        return board_named(self.name)

    @property
    def wire(self) -> Link:
        return link_named(self.link)

    @property
    def profile(self) -> DeviceProfile:
        return profile_of(self.name)


@dataclass(frozen=True, slots=True)
class Attendance:
    """Who is there, each share or probability drawn by the seed.

    Attributes:
        offline: share of devices whose links are down for a whole round, drawn anew for each.
        stragglers: share of devices that compute `slowdown` times as long, always the same ones.
        slowdown: see there.
        late: share of devices that join in a later round, any of them equally likely.
        leave: probability that a device is gone for good after a round.
        round_s: a round's deadline.
        pause_s: between two rounds.
    """

    offline: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 10.0
    late: float = 0.0
    leave: float = 0.0
    round_s: int = 600
    pause_s: float = 10.0

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in (self.offline, self.stragglers, self.late, self.leave)):
            raise InvalidValueError("offline, stragglers, late and leave lie in [0, 1)")
        if self.slowdown < 1 or self.round_s < 1 or self.pause_s < 0:
            raise InvalidValueError("slowdown and round_s are at least 1, pause_s 0 or more")
