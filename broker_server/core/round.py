"""One round as a pure fold: `step(round, event) -> round`.

    OFFERED --all invited are in, or quorum at the deadline--> AGGREGATING --consensus made--> CLOSED
       |                                                            |
       +--no quorum at the deadline, new epoch--> ABORTED <---------+--no consensus, new epoch, by order
          by order

Rules:
- A device counts once, with the first payload that was stored. Payloads that became durable together count together.
- All in closes a round early: every device that was online at the offer and invited has contributed, and quorum is met.
  Where nobody was online at the offer the deadline alone closes it. Reports never do.
- What has ended stays as it is. An event that does not fit changes nothing: late, doubled and foreign are one case.

What is deliberately absent: payloads (the round knows digests), the clock (an event), what a consensus is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from broker_server.core.by_device import ByDevice
from broker_server.core.events import (
    AggregationFailed,
    ClockTicked,
    Command,
    ConsensusMade,
    ContributionsStored,
    EpochBegun,
    Event,
    Ordered,
    RoundOpened,
)
from fd_protocol.identity import RoundId
from fd_protocol.messages import RoundOffer
from fd_protocol.schema import keyed

NO_QUORUM = "quorum"
NEW_EPOCH = "epoch"
BY_ORDER = "operator"
STEP_MS = 60_000
"""A clock that is set back by less is waited for."""


class Phase(str, Enum):
    """Where a round stands; see the picture above."""

    OFFERED = "offered"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Round:
    """A round's whole memory; once it has ended, the devices are forgotten and the counts stay."""

    offer: RoundOffer = keyed(1)
    deadline_ms: int = keyed(2)
    invited: int = keyed(3)
    phase: Phase = keyed(4, default=Phase.OFFERED)
    heard: int = keyed(5, default=0)
    """Devices that have contributed."""
    awaited: int = keyed(6, default=0)
    """Invited devices that have not."""
    devices: ByDevice[bytes] = field(default_factory=ByDevice, metadata={"key": 7})
    """SHA-256 of each device's payload; empty while an invited device is awaited."""
    reason: str = keyed(8, default="")
    """Why the round was aborted."""
    is_warm_up: bool = keyed(9, default=False)
    """Its consensus is not published: devices warm up, say where they stand, and earn their first trust."""
    up_bytes: int = keyed(10, default=0)
    """Of the payloads that count."""
    trial_of: int = keyed(11, default=0)
    """Number of the staged edition that it tries (`editions`): nothing of it is published. 0 = it is no trial."""

    @property
    def id(self) -> RoundId:
        return self.offer.round

    @property
    def is_open(self) -> bool:
        """Whether it takes contributions."""
        return self.phase is Phase.OFFERED

    @property
    def has_ended(self) -> bool:
        return self.phase in (Phase.CLOSED, Phase.ABORTED)

    @property
    def contributions(self) -> tuple[tuple[str, bytes], ...]:
        """What is to be aggregated: (device, SHA-256 of its payload), sorted by device."""
        return tuple(sorted((device, digest) for device, digest in self.devices.items() if digest))


def opened(event: RoundOpened, *, is_warm_up: bool = False, is_trial: bool = False) -> Round:
    """Return the round that `event` begins."""
    return Round(
        offer=event.offer,
        deadline_ms=event.at_ms + 1000 * event.offer.remaining_s,
        invited=len(event.invited),
        awaited=len(event.invited),
        devices=ByDevice(dict.fromkeys(event.invited, b"")),
        is_warm_up=is_warm_up,
        trial_of=event.edition if is_trial else 0,
    )


def step(state: Round, event: Event) -> Round:
    """Return the round after `event`."""
    match state.phase, event:
        case Phase.OFFERED, ContributionsStored() if event.round == state.id:
            return _count(state, event)
        case Phase.OFFERED, ClockTicked(at_ms) if at_ms >= state.deadline_ms:
            return _end_offer(state)
        case Phase.OFFERED, ClockTicked(at_ms) if was_set_back(state, at_ms):
            return replace(state, deadline_ms=at_ms + 1000 * state.offer.remaining_s)
        case Phase.AGGREGATING, ConsensusMade() if event.round == state.id:
            return _end(state, Phase.CLOSED)
        case Phase.AGGREGATING, AggregationFailed() if event.round == state.id:
            return _end(state, Phase.ABORTED, event.reason)
        case Phase.OFFERED | Phase.AGGREGATING, EpochBegun():
            return _end(state, Phase.ABORTED, NEW_EPOCH)
        case Phase.OFFERED | Phase.AGGREGATING, Ordered(order) if order.command == Command.ABORT:
            why = order.arguments.get("reason", "")
            return _end(state, Phase.ABORTED, f"{BY_ORDER}: {why}" if why else BY_ORDER)
    return state


def was_set_back(state: Round, at_ms: int) -> bool:
    """Whether it is well before the round opened by this clock: it was set back, and the round's time begins anew."""
    return state.deadline_ms - at_ms > 1000 * state.offer.remaining_s + STEP_MS


def _count(state: Round, event: ContributionsStored) -> Round:
    first = {one.device: one for one in reversed(event.contributions) if not state.devices.get(one.device)}
    if not first:
        return state
    state = replace(
        state,
        devices=state.devices.changed({one.device: one.sha256 for one in first.values()}),
        heard=state.heard + len(first),
        awaited=state.awaited - sum(device in state.devices for device in first),
        up_bytes=state.up_bytes + sum(one.size for one in first.values()),
    )
    return _end_if_all_in(state)


def _end_if_all_in(state: Round) -> Round:
    all_in = state.invited > 0 and state.awaited == 0
    return _end_offer(state) if all_in and state.heard >= state.offer.quorum else state


def _end_offer(state: Round) -> Round:
    if state.heard < state.offer.quorum:
        return _end(state, Phase.ABORTED, NO_QUORUM)
    return replace(state, phase=Phase.AGGREGATING)


def _end(state: Round, phase: Phase, reason: str = "") -> Round:
    return replace(state, phase=phase, reason=reason, devices=ByDevice())


def without(state: Round, device: str) -> Round:
    """Return the round as if `device` had sent nothing and nobody waited for it."""
    sent = state.devices.get(device)
    if sent is None:
        return state
    devices = state.devices.without(device)
    if not sent:
        return _end_if_all_in(replace(state, devices=devices, awaited=state.awaited - 1))
    state = replace(state, devices=devices, heard=state.heard - 1)
    lacks_quorum = state.phase is Phase.AGGREGATING and state.heard < state.offer.quorum
    return _end(state, Phase.ABORTED, NO_QUORUM) if lacks_quorum else state
