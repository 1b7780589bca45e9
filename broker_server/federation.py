"""A federation as a pure fold: `step(state, event) -> state`, `outstanding(state) -> effects`.

The outer fold around `round`: who is online, when the next round is due, what the last consensus was.

Rules:
- One round at a time; its number is one more than the last one's, in whatever epoch.
- A new epoch ends the open round. It begins when the database is created, or found older than what the fleet has seen.
- The roster holds devices that are online and no others. Of two lives of a device the higher boot counter wins, so a
  late will of an earlier life changes nothing.
- A round opens when its pause is over and enough devices are online.
- An operator's order is obeyed or refused, once: its answer is remembered for a while. `pause` holds back the rounds to
  come, `abort` ends the open one, `round-now` opens one whatever the schedule says and whoever is online.
- The consensus is outstanding for as long as it is the last one: what the broker retains of it may be lost at any time.
  It ends with its epoch; the trust that it earned the devices, and the student, do not.

What is deliberately absent: messages, settings, randomness: the shell makes the offer and brings it as `RoundOpened`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker_server import round as rounds
from broker_server.events import (
    Aggregate,
    AggregationFailed,
    ClockTicked,
    Command,
    ConsensusMade,
    ContributionStored,
    DeviceGone,
    DeviceSeen,
    Effect,
    EpochBegun,
    Event,
    OpenRound,
    Order,
    Ordered,
    PublishConsensus,
    PublishOffer,
    PublishPresence,
    RoundOpened,
    Schedule,
    Scheduled,
    StudentTrained,
    TrainStudent,
)
from broker_server.round import Phase, Round
from fd_protocol import cbor
from fd_protocol.identity import RoundId
from fd_protocol.schema import from_item, keyed, to_item

_ANSWERS = 64
"""Orders whose answers are remembered: more than the spool is read of at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order, by its id; `outcome` is a line for people."""

    order: str = keyed(1)
    outcome: str = keyed(2)
    is_obeyed: bool = keyed(3, default=False)


@dataclass(frozen=True, slots=True)
class Presence:
    """A device that is online, in its life number `boot`."""

    boot: int = keyed(1)
    capabilities: tuple[str, ...] = keyed(2, default=())


@dataclass(frozen=True, slots=True)
class Consensus:
    """The last consensus; see `events.ConsensusMade`."""

    round: RoundId = keyed(1)
    sha256: bytes = keyed(2)
    blocks: tuple[bytes, ...] = keyed(3)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 4})


@dataclass(frozen=True, slots=True)
class Student:
    """The student after `round`; `weights` is the digest of its state, empty before it first succeeded."""

    round: RoundId = keyed(1)
    weights: bytes = keyed(2)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 3})


@dataclass(frozen=True, slots=True)
class Federation:
    """The whole memory of a server; what it names by digest lies in the store."""

    epoch: int = keyed(1, default=0)
    """0 = none has begun."""
    schedule: Schedule = keyed(2, default=Schedule())
    number: int = keyed(3, default=0)
    """Of the last round opened."""
    online: Mapping[str, Presence] = field(default_factory=dict, metadata={"key": 4})
    round: Round | None = keyed(5, default=None)
    next_round_ms: int = keyed(6, default=0)
    is_due: bool = keyed(7, default=False)
    """The pause before the next round is over."""
    consensus: Consensus | None = keyed(8, default=None)
    trust: bytes = keyed(9, default=b"")
    """Digest of the trust that the last round earned each device; empty = none yet."""
    student: Student | None = keyed(10, default=None)
    is_paused: bool = keyed(11, default=False)
    """No round opens but by order."""
    is_wanted: bool = keyed(12, default=False)
    """The next round was ordered."""
    answers: tuple[Answer, ...] = keyed(13, default=())
    """To the last orders."""

    @property
    def has_open_round(self) -> bool:
        return self.round is not None and not self.round.has_ended

    @property
    def is_complete(self) -> bool:
        """Whether the last scheduled round has ended."""
        return 0 < self.schedule.rounds <= self.number and not self.has_open_round and not self.is_wanted

    def answer_to(self, order: str) -> Answer | None:
        """Return what became of the order with this id; None: it has not come, or long ago."""
        return next((answer for answer in self.answers if answer.order == order), None)


def step(state: Federation, event: Event) -> Federation:
    """Return the state after `event`."""
    match event:
        case EpochBegun(epoch, at_ms):
            return replace(_step_round(state, event, at_ms), epoch=epoch, consensus=None)
        case Scheduled(schedule):
            return replace(state, schedule=schedule)
        case DeviceSeen(device, boot, capabilities) if boot >= _boot(state, device):
            return _see(state, device, Presence(boot, capabilities))
        case DeviceGone(device, boot) if device in state.online and boot >= _boot(state, device):
            return replace(state, online={name: p for name, p in state.online.items() if name != device})
        case RoundOpened() if not state.has_open_round and event.offer.round.number == state.number + 1:
            opened = rounds.opened(event)
            return replace(state, round=opened, number=state.number + 1, is_due=False, is_wanted=False)
        case ClockTicked(at_ms) if not state.has_open_round:
            return replace(state, is_due=True) if at_ms >= state.next_round_ms else state
        case StudentTrained() if state.consensus is not None and event.round == state.consensus.round:
            return replace(state, student=_student(state, event))
        case Ordered(order) if state.answer_to(order.id) is None:
            state, answer = _obey(state, event)
            return replace(state, answers=(*state.answers, answer)[-_ANSWERS:])
        case ContributionStored():
            return _step_round(state, event)
        case ConsensusMade(at_ms=at_ms) | AggregationFailed(at_ms=at_ms) | ClockTicked(at_ms=at_ms):
            return _step_round(state, event, at_ms)
    return state


def outstanding(state: Federation) -> tuple[Effect, ...]:
    """Return everything that must be brought about in this state, the first first."""
    effects: list[Effect] = [PublishPresence(state.epoch)]
    if state.consensus is not None:
        effects.append(PublishConsensus(state.consensus.round, state.consensus.blocks))
    match state.round:
        case Round(phase=Phase.OFFERED) as current:
            effects.append(PublishOffer(current.id))
        case Round(phase=Phase.AGGREGATING) as current:
            effects.append(Aggregate(current.id, current.contributions))
    if _may_open(state):
        effects.append(OpenRound(state.number + 1))
    if state.consensus is not None and _owes_training(state, state.consensus):
        weights = state.student.weights if state.student else b""
        effects.append(TrainStudent(state.consensus.round, state.consensus.blocks, weights))
    return tuple(effects)


def wake_at_ms(state: Federation) -> int | None:
    """Return when a `ClockTicked` would change the state; None = never."""
    if state.round is not None and state.round.is_open:
        return state.round.deadline_ms
    return None if state.has_open_round or state.is_due or state.is_complete else state.next_round_ms


def named_blobs(state: Federation) -> frozenset[bytes]:
    """Return the digests of all bytes that the state may still ask for."""
    named = {state.student.weights} if state.student else set()
    if state.consensus is not None:
        named |= set(state.consensus.blocks)
    return frozenset((named | {state.trust}) - {b""})


def to_snapshot(state: Federation) -> bytes:
    return cbor.encode(to_item(state))


def from_snapshot(body: bytes) -> Federation:
    """Return the state that `to_snapshot` wrote.

    Raises:
        DecodeError: it was written by a newer server, or it is damaged.
    """
    return from_item(Federation, cbor.decode(body, max_items=len(body) + 1))


def _boot(state: Federation, device: str) -> int:
    return state.online[device].boot if device in state.online else 0


def _see(state: Federation, device: str, presence: Presence) -> Federation:
    if state.online.get(device) == presence:
        return state
    return replace(state, online={**state.online, device: presence})


def _step_round(state: Federation, event: Event, at_ms: int = 0) -> Federation:
    """Let the open round take `event`; where that ends it, the pause begins."""
    if state.round is None:
        return state
    after = rounds.step(state.round, event)
    if after is state.round:
        return state
    state = replace(state, round=after)
    if not after.has_ended:
        return state
    if isinstance(event, ConsensusMade):
        consensus = Consensus(event.round, event.sha256, event.blocks, event.metrics)
        state = replace(state, consensus=consensus, trust=event.trust)
    return replace(state, next_round_ms=at_ms + state.schedule.pause_ms)


def _student(state: Federation, event: StudentTrained) -> Student:
    """A failed training leaves the weights as they were."""
    before = state.student.weights if state.student else b""
    return Student(event.round, event.weights or before, event.metrics)


def _obey(state: Federation, event: Ordered) -> tuple[Federation, Answer]:
    """Return the state after an order, and what its giver is told."""

    def answer(outcome: str, *, obeyed: bool = True) -> Answer:
        return Answer(event.order.id, outcome, obeyed)

    open_round = f"round {state.number}" if state.has_open_round else ""
    match event.order:
        case Order(command=Command.PAUSE):
            goes_on = f"; {open_round} goes on" if open_round else ""
            return replace(state, is_paused=True), answer(f"paused{goes_on}")
        case Order(command=Command.RESUME):
            return replace(state, is_paused=False), answer("resumed")
        case Order(command=Command.ABORT) if open_round:
            return _step_round(state, event, event.at_ms), answer(f"{open_round} aborted")
        case Order(command=Command.ABORT):
            return state, answer("no round is open", obeyed=False)
        case Order(command=Command.ROUND_NOW) if not open_round:
            return replace(state, is_wanted=True), answer(f"round {state.number + 1} opens")
        case Order(command=Command.ROUND_NOW):
            return state, answer(f"{open_round} is open: it must end first", obeyed=False)
    return state, answer(f"no such command: {event.order.command}", obeyed=False)


def _may_open(state: Federation) -> bool:
    if state.is_wanted:
        return not state.has_open_round
    if state.has_open_round or state.is_paused or not state.is_due or state.is_complete:
        return False
    return len(state.online) >= state.schedule.minimum_online


def _owes_training(state: Federation, consensus: Consensus) -> bool:
    is_behind = state.student is None or state.student.round != consensus.round
    return state.schedule.has_student and is_behind
