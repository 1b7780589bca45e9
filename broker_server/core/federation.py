"""A federation as a pure fold: `step(state, event) -> state`, `outstanding(state) -> effects`.

The outer fold around `round`: who is online, when the next round is due, what the last consensus was.

Rules:
- One round at a time; its number is one more than the last one's, in whatever epoch.
- A new epoch ends the open round. It begins when the database is created, or found older than what the fleet has seen.
- The roster holds devices that are online and no others. Of two lives of a device the higher boot counter wins, so a
  late will of an earlier life changes nothing.
- A round opens when its time has come and enough devices are online: a pause after the last one, a time of the
  timetable after its end, or an order.
- A warm-up round goes like any other, but nobody sees its consensus. There is one until a consensus has been made.
- An operator's order is obeyed or refused, once: its answer is remembered for a while. `pause` holds back the rounds to
  come, `abort` ends the open one, `round-now` opens one whatever the schedule says and whoever is online, `release`
  and `withdraw` are for `releases`, `probes-...` for `editions`.
- The consensus is outstanding for as long as it is the last one: what the broker retains of it may be lost at any time.
  It ends with its epoch; the trust that it earned the devices, the student and the releases do not.
- A round is about the current edition of the public set, or a trial of the staged one (`editions`). A trial's consensus
  and the trust that it gave change nothing else.
- Where the student speaks, what goes out is its own word once it has learnt the consensus, and the next round waits for
  it. A student that failed lets the consensus itself go out.

What is deliberately absent: messages, settings, randomness: the shell makes the offer and brings it as `RoundOpened`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from broker_server.core import editions, releases
from broker_server.core import round as rounds
from broker_server.core.by_device import ByDevice
from broker_server.core.editions import Editions, Trial
from broker_server.core.events import (
    Aggregate,
    AggregationFailed,
    ClockTicked,
    Command,
    ConsensusMade,
    ContributionsStored,
    DeviceGone,
    DeviceSeen,
    EditionNamed,
    Effect,
    EpochBegun,
    Event,
    FindTime,
    OpenRound,
    Order,
    Ordered,
    Portion,
    PublishConsensus,
    PublishOffer,
    PublishPresence,
    ReleaseFailed,
    ReleaseMade,
    RolloutHeard,
    RoundOpened,
    Schedule,
    Scheduled,
    StudentTrained,
    TimeFound,
    TrainStudent,
)
from broker_server.core.releases import Candidate, Releases
from broker_server.core.rollouts import staged_as, started_by
from broker_server.core.round import Phase, Round
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.messages import RoundOffer
from fd_protocol.schema import decode, encode, keyed

PROBE_COMMANDS = frozenset(command for command in Command if command.value.startswith("probes-"))
"""Those that `editions` obeys."""
_ANSWERS = 64
"""Orders whose answers are remembered: more than the spool is read of at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order, by its id; `outcome` is a line for people."""

    order: str = keyed(1)
    outcome: str = keyed(2)
    is_obeyed: bool = keyed(3, default=False)
    facts: Mapping[str, str] = field(default_factory=dict, metadata={"key": 4})
    """The same for programs, where there is more to it than the line."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A device that is online, in its life number `boot`."""

    boot: int = keyed(1)
    capabilities: tuple[str, ...] = keyed(2, default=())
    public_sets: tuple[bytes, ...] = keyed(3, default=())
    """Digests of those it has; empty = it does not say, as agents do not that know of one alone."""

    def has(self, public_set: bytes, *, is_current: bool) -> bool:
        """Whether it can answer about a set, the current one or another."""
        return public_set in self.public_sets if self.public_sets else is_current


@dataclass(frozen=True, slots=True)
class Consensus:
    """The last consensus; see `events.ConsensusMade`. That of a warm-up round has no blocks to publish."""

    round: RoundId = keyed(1)
    sha256: bytes = keyed(2)
    blocks: tuple[bytes, ...] = keyed(3)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 4})
    portions: tuple[Portion, ...] = keyed(5, default=())
    made: bytes = keyed(41, default=b"")


@dataclass(frozen=True, slots=True)
class Student:
    """The student after `round`; `weights` is the digest of its state, empty before it first succeeded.

    `blocks` are what it says itself of the round's probes, where that goes out; () where it failed. `is_better`: than
    what the fleet ran when it was judged.
    """

    round: RoundId = keyed(1)
    weights: bytes = keyed(2)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 3})
    blocks: tuple[bytes, ...] = keyed(31, default=())
    is_better: bool = keyed(32, default=False)


@dataclass(frozen=True, slots=True)
class Federation:
    """The whole memory of a server; what it names by digest lies in the store."""

    epoch: int = keyed(1, default=0)
    """0 = none has begun."""
    schedule: Schedule = keyed(2, default=Schedule())
    number: int = keyed(3, default=0)
    """Of the last round opened."""
    online: ByDevice[Presence] = field(default_factory=ByDevice, metadata={"key": 4})
    round: Round | None = keyed(5, default=None)
    next_round_ms: int = keyed(6, default=0)
    """When the next round is due; where a timetable has not been asked yet, the time after which to look."""
    is_due: bool = keyed(7, default=False)
    """The time of the next round has come."""
    consensus: Consensus | None = keyed(8, default=None)
    trust: bytes = keyed(9, default=b"")
    """Digest of the trust that devices have earned up to the last round; empty = none yet."""
    student: Student | None = keyed(10, default=None)
    is_paused: bool = keyed(11, default=False)
    """No round opens but by order."""
    is_wanted: bool = keyed(12, default=False)
    """The next round was ordered."""
    answers: tuple[Answer, ...] = keyed(13, default=())
    """To the last orders."""
    is_timed: bool = keyed(14, default=False)
    """The timetable has been asked for the next round's time."""
    last_offer: RoundOffer | None = keyed(15, default=None)
    """Of the round before this one."""

    editions: Editions = keyed(16, default=Editions())
    releases: Releases = keyed(31, default=Releases())

    @property
    def has_open_round(self) -> bool:
        return self.round is not None and not self.round.has_ended

    @property
    def is_trying(self) -> bool:
        """Whether the open round is a trial."""
        return self.round is not None and not self.round.has_ended and self.round.trial_of > 0

    @property
    def is_complete(self) -> bool:
        """Whether the last scheduled round has ended."""
        is_wanted = self.is_wanted or self.editions.is_trial_wanted
        return 0 < self.schedule.rounds <= self.number and not self.has_open_round and not is_wanted

    @property
    def is_warming_up(self) -> bool:
        """Whether a round that opens now is a warm-up; a trial is none."""
        return self.schedule.warm_up and not self.trust and not self.editions.is_trial_wanted

    def answer_to(self, order: str) -> Answer | None:
        """Return what became of the order with this id; None: it has not come, or long ago."""
        return next((answer for answer in self.answers if answer.order == order), None)


def step(state: Federation, event: Event) -> Federation:
    """Return the state after `event`."""
    if isinstance(event, ClockTicked):
        fate = releases.ticked(state.releases, event.at_ms)
        state = state if fate is state.releases else replace(state, releases=fate)
    match event:
        case EpochBegun(epoch, at_ms):
            return replace(_step_round(state, event, at_ms), epoch=epoch, consensus=None)
        case Scheduled(schedule, at_ms):
            return _reschedule(state, schedule, at_ms)
        case TimeFound(timetable, after_ms, at_ms) if FindTime(timetable, after_ms) in outstanding(state):
            return replace(state, next_round_ms=at_ms, is_timed=True)
        case EditionNamed(edition):
            after = editions.named(state.editions, edition)
            return state if after is state.editions else replace(state, editions=after)
        case DeviceSeen(device, boot) if boot >= _boot(state, device):
            return _see(state, device, Presence(boot, event.capabilities, event.public_sets))
        case DeviceGone(device, boot) if device in state.online and boot >= _boot(state, device):
            return replace(state, online=state.online.without(device))
        case RoundOpened() if not state.has_open_round and _is_next(event, state):
            return _open(state, event)
        case ClockTicked(at_ms) if not state.has_open_round:
            is_time = _has_time(state) and (at_ms >= state.next_round_ms or was_set_back(state, at_ms))
            return replace(state, is_due=True) if is_time and not state.is_due else state
        case StudentTrained() if state.consensus is not None and event.round == state.consensus.round:
            return _learn(state, event)
        case RolloutHeard():
            fate = releases.hear(state.releases, event)
            return state if fate is state.releases else replace(state, releases=fate)
        case ReleaseMade() | ReleaseFailed():
            fate = releases.step(state.releases, event)
            return state if fate is state.releases else replace(state, releases=fate)
        case Ordered(order) if state.answer_to(order.id) is None:
            return answered(*_obey(state, event))
        case ContributionsStored():
            return _step_round(state, event)
        case ConsensusMade(at_ms=at_ms) | AggregationFailed(at_ms=at_ms) | ClockTicked(at_ms=at_ms):
            return _step_round(state, event, at_ms)
    return state


def outstanding(state: Federation) -> tuple[Effect, ...]:
    """Return everything that must be brought about in this state, the first first."""
    effects: list[Effect] = [PublishPresence(state.epoch)]
    if state.consensus is not None and (blocks := _spoken(state, state.consensus)):
        effects.append(PublishConsensus(state.consensus.round, blocks))
    match state.round:
        case Round(phase=Phase.OFFERED) as current:
            effects.append(PublishOffer(current.id))
        case Round(phase=Phase.AGGREGATING) as current:
            effects.append(Aggregate(current.id, current.contributions))
    if _asks_time(state):
        assert state.schedule.timetable is not None
        effects.append(FindTime(state.schedule.timetable, state.next_round_ms))
    if _may_open(state):
        effects.append(OpenRound(state.number + 1, state.epoch, _next_edition(state)))
    if state.consensus is not None and _owes_training(state, state.consensus):
        weights = state.student.weights if state.student else b""
        learnt, speaks = state.consensus, state.schedule.student_speaks
        effects.append(TrainStudent(learnt.round, learnt.blocks, weights, state.releases.weights, speaks))
    return (*effects, *releases.outstanding(state.releases), *editions.outstanding(state.editions))


def wake_at_ms(state: Federation) -> int | None:
    """Return when a `ClockTicked` would change the state; None = never."""
    if state.round is not None and state.round.is_open:
        return state.round.deadline_ms
    if state.has_open_round or state.is_due or state.is_complete or not _has_time(state):
        return None
    return state.next_round_ms


def was_set_back(state: Federation, at_ms: int) -> bool:
    """Whether the clock was set back behind what is waited for, so that a `ClockTicked` changes the state now.

    A pause is over then. A time of a timetable is one of the clock on the wall, and stays what it is.
    """
    if state.round is not None and state.round.is_open:
        return rounds.was_set_back(state.round, at_ms)
    if wake_at_ms(state) is None or state.schedule.timetable is not None:
        return False
    return state.next_round_ms - at_ms > state.schedule.pause_ms + rounds.STEP_MS


def late_offer(state: Federation) -> RoundOffer | None:
    """Return the offer whose payloads come late, yet early enough to be their devices' last words.

    While a round is aggregated those of the round before it may not change: the same bits must come of it twice.
    """
    if state.round is None:
        return None
    return state.last_offer if state.round.is_open else state.round.offer


def named_blobs(state: Federation) -> frozenset[bytes]:
    """Return the digests of all bytes that the state may still ask for."""
    named = {state.student.weights, *state.student.blocks} if state.student else set()
    if state.consensus is not None:
        named |= set(state.consensus.blocks)
    if state.editions.trial is not None:
        named.add(state.editions.trial.trust)
    return frozenset((named | {state.trust} | state.releases.named_blobs) - {b""})


def without(state: Federation, device: str) -> Federation:
    """Return the state as if `device` were gone and had sent nothing in the open round. Its trust is not in here."""
    current = rounds.without(state.round, device) if state.round is not None else None
    return replace(state, online=state.online.without(device), round=current)


def answered(state: Federation, answer: Answer) -> Federation:
    """Return the state that remembers an answer; the oldest gives way."""
    return replace(state, answers=(*state.answers, answer)[-_ANSWERS:])


def to_snapshot(state: Federation) -> bytes:
    return encode(state)


def from_snapshot(body: bytes) -> Federation:
    """Return the state that `to_snapshot` wrote.

    Raises:
        DecodeError: it was written by a newer server, or it is damaged.
    """
    return decode(Federation, body, max_items=len(body))


def _is_next(opened: RoundOpened, state: Federation) -> bool:
    """An offer that was made before a new epoch began, or the public set changed, is void: it asks in vain."""
    asked = opened.offer.round
    return (asked.epoch, asked.number, opened.edition) == (state.epoch, state.number + 1, _next_edition(state))


def _next_edition(state: Federation) -> int:
    """Return the number of the edition that the next round is about; 0 = there are none."""
    return state.editions.next.number if state.editions.next is not None else 0


def _open(state: Federation, event: RoundOpened) -> Federation:
    is_trial = editions.is_trial(state.editions, event.edition)
    return replace(
        state,
        round=rounds.opened(event, is_warm_up=state.is_warming_up, is_trial=is_trial),
        number=state.number + 1,
        is_due=False,
        is_wanted=state.is_wanted and is_trial,  # a round that was ordered as well is still to come
        last_offer=state.round.offer if state.round is not None else None,
        editions=editions.opened(state.editions, event.edition),
    )


def _boot(state: Federation, device: str) -> int:
    return state.online[device].boot if device in state.online else 0


def _see(state: Federation, device: str, presence: Presence) -> Federation:
    if state.online.get(device) == presence:
        return state
    return replace(state, online=state.online.changed({device: presence}))


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
    if isinstance(event, ConsensusMade) and after.trial_of:
        trial = Trial(after.trial_of, event.round, event.sha256, event.trust, event.metrics)
        state = replace(state, editions=editions.tried(state.editions, trial))
    elif isinstance(event, ConsensusMade):
        consensus = Consensus(event.round, event.sha256, event.blocks, event.metrics, event.portions, event.made)
        if after.is_warm_up:
            consensus = replace(consensus, blocks=(), portions=())
        state = replace(state, consensus=consensus, trust=event.trust)
    pause_ms = 0 if state.schedule.timetable else state.schedule.pause_ms
    return replace(state, next_round_ms=at_ms + pause_ms, is_timed=False)


def _reschedule(state: Federation, schedule: Schedule, at_ms: int) -> Federation:
    """A round that opens by another rule than before is not due by the old one."""
    if schedule.opens_like(state.schedule):
        return replace(state, schedule=schedule)
    return replace(state, schedule=schedule, next_round_ms=at_ms, is_timed=False, is_due=False)


def _has_time(state: Federation) -> bool:
    """Whether it is known when the next round is due."""
    return not state.schedule.on_demand and (state.schedule.timetable is None or state.is_timed)


def _asks_time(state: Federation) -> bool:
    is_needed = state.schedule.timetable is not None and not state.is_timed
    return is_needed and not state.has_open_round and not state.is_complete


def _learn(state: Federation, event: StudentTrained) -> Federation:
    """A failed training leaves the weights as they were."""
    before = state.student.weights if state.student else b""
    student = Student(event.round, event.weights or before, event.metrics, event.blocks, event.is_better)
    state = replace(state, student=student)
    if not (event.is_better and state.schedule.auto_release):
        return state
    if state.releases.own is not None:  # which stands until it is withdrawn
        return state
    candidate = Candidate(event.round, event.weights, is_verified=True, staging=state.schedule.staging)
    return replace(state, releases=releases.propose(state.releases, candidate))


def _spoken(state: Federation, consensus: Consensus) -> tuple[bytes, ...]:
    """Return the blocks that go out; () while they are still to come."""
    if not state.schedule.student_speaks:
        return consensus.blocks
    if _owes_training(state, consensus) or state.student is None:
        return ()
    return state.student.blocks or consensus.blocks


def _obey(state: Federation, event: Ordered) -> tuple[Federation, Answer]:
    """Return the state after an order, and what its giver is told."""

    def answer(outcome: str, *, obeyed: bool = True) -> Answer:
        return Answer(event.order.id, outcome, obeyed)

    open_round = f"round {state.number}" if state.has_open_round else ""
    if event.problem:
        return state, answer(event.problem, obeyed=False)
    match event.order:
        case Order() if event.devices:
            count = f"{event.devices} devices" if event.devices > 1 else "1 device"
            deaf = "; 1 does not hear commands" if event.deaf == 1 else f"; {event.deaf} do not hear commands"
            command = event.order.arguments.get("command", "it")
            return state, answer(f"{command} sent to {count}{deaf if event.deaf else ''}")
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
        case Order(command=Command.RELEASE):
            return _release(state, event.order, answer)
        case Order(command=Command.PUBLISH):
            return _publish(state, event, answer)
        case Order(command=Command.ROLLOUT_WIDEN | Command.ROLLOUT_HALT | Command.ROLLOUT_RESUME):
            return _change_rollout(state, event, answer)
        case Order(command=Command.WITHDRAW) if (family := _withdrawn_family(state, event.order)) is not None:
            taken_back, words = releases.take_back(state.releases, family)
            is_obeyed = taken_back is not state.releases
            return replace(state, releases=taken_back), answer(words, obeyed=is_obeyed)
        case Order(command=Command.WITHDRAW) if state.releases.current is not None:
            gone, after = state.releases.current, releases.withdraw(state.releases)
            back = after.current.version if after.current else "the first bundle"
            return replace(state, releases=after), answer(f"{gone.version} withdrawn, {back} is current")
        case Order(command=Command.WITHDRAW):
            return state, answer("there is no release to withdraw", obeyed=False)
        case Order(command=command) if command in PROBE_COMMANDS:
            return _change_probes(state, event, answer)
    return state, answer(f"no such command: {event.order.command}", obeyed=False)


def _change_probes(state: Federation, event: Ordered, answer: Callable[..., Answer]) -> tuple[Federation, Answer]:
    if event.order.command == Command.PROBES_DROP and state.is_trying:
        return state, answer(f"round {state.number} is a trial of it: it must end first", obeyed=False)
    obeyed = editions.obey(state.editions, event.order, event.at_ms, lacking=len(lacking_staged(state)))
    trust = b"" if obeyed.forgets_trust else state.trust
    return replace(state, editions=obeyed.editions, trust=trust), answer(obeyed.outcome, obeyed=obeyed.is_obeyed)


def lacking_staged(state: Federation) -> list[str]:
    """Return the devices online that do not have the staged public set."""
    staged = state.editions.staged
    if staged is None:
        return []
    return sorted(name for name, one in state.online.items() if not one.has(staged.public_set, is_current=False))


def _publish(state: Federation, event: Ordered, answer: Callable[..., Answer]) -> tuple[Federation, Answer]:
    new = releases.published_by(event.order, event.at_ms)
    rollout = started_by(event.order.arguments, new.family, new.bundle, event.at_ms)
    try:
        after = releases.publish(state.releases, new, rollout)
    except InvalidValueError as error:
        return state, answer(str(error), obeyed=False)
    if after is state.releases:
        return state, answer(f"{new.version} is what devices of family {new.family} run already", obeyed=False)
    words = f"{new.version} is what devices of family {new.family} run from now on"
    if not rollout.is_for_all:
        words = f"{new.version} begins with {rollout.words}"
    return replace(state, releases=after), answer(words)


def _change_rollout(state: Federation, event: Ordered, answer: Callable[..., Answer]) -> tuple[Federation, Answer]:
    try:
        after, words = releases.change_rollout(state.releases, event.order, event.at_ms)
    except KeyError as missing:
        return state, answer(f"the order does not say {missing}", obeyed=False)
    except ValueError as error:  # InvalidValueError is one
        return state, answer(str(error), obeyed=False)
    return replace(state, releases=after), answer(words)


def _withdrawn_family(state: Federation, order: Order) -> str | None:
    """Return the family whose published bundle an order is about; None: it is about a release of the student."""
    own, current = state.releases.own, state.releases.current
    said = order.arguments.get("family", "")
    if own is None and current is not None and said == current.family:
        return None
    return said or (own.family if own is not None else None)


def _release(state: Federation, order: Order, answer: Callable[..., Answer]) -> tuple[Federation, Answer]:
    """What the canaries have not found better is released all the same, as not verified."""
    student, own = state.student, state.releases.own
    if student is None or not student.weights:
        return state, answer("the student has learnt nothing yet", obeyed=False)
    if own is not None:
        return state, answer(f"{own.version} is published for its family: withdraw it first", obeyed=False)
    name = f"the student after round {student.round.number}"
    if why := releases.objection(state.releases, student.weights, by_order=True):
        return state, answer(f"a release of {name} {why}", obeyed=False)
    staging = staged_as(state.schedule.staging, order.arguments)
    candidate = Candidate(student.round, student.weights, student.is_better, staging)
    after = releases.propose(state.releases, candidate, by_order=True)
    return replace(state, releases=after), answer(f"{name} is released")


def _may_open(state: Federation) -> bool:
    if state.schedule.student_speaks and state.consensus is not None and _owes_training(state, state.consensus):
        return False
    if state.is_wanted or state.editions.is_trial_wanted:
        return not state.has_open_round
    if state.has_open_round or state.is_paused or not state.is_due or state.is_complete:
        return False
    return len(state.online) >= state.schedule.minimum_online


def _owes_training(state: Federation, consensus: Consensus) -> bool:
    if not consensus.blocks:
        return False
    is_behind = state.student is None or state.student.round != consensus.round
    return state.schedule.has_student and is_behind
