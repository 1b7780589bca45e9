"""A device's side of the federation as a pure fold: `step(state, event) -> state`, `outstanding(state) -> effects`.

    IDLE --offer--> PREDICTING --soft labels in the outbox--> SUBMITTING --receipt--> AWAITING
     ^                  |                                         |                      |
     |                  +-- deadline, refusal, third failure -----+                      | consensus complete
     |                                        |                                          v
     +------------- report sent --------- REPORTING <---- done, or third failure ---- TRAINING <-- from IDLE too

    IDLE --other private rows, and no round's work is due--> REFRESHING --done, or third failure--> IDLE

Rules:
- A device predicts an open round before it trains on a consensus; an offer that comes while it trains waits.
- Before its first contribution it warms up, unless it has trained already. It maps its competence once per public set
  and private epoch; the map is owed until the server has answered it. With another bundle it warms up again.
- Rows that change while they are mapped ask for another map. Those that change in a training are learned after it.
- One round, one payload: a retry sends the same bytes. Only `refused(unknown_base)` permits another encoding, once, of
  the same codes; any other refusal ends the round with its reason.
- A newer offer ends the round before it. An epoch once left never comes back; a new one voids the base and the
  server's word on the map.
- The next difference about a slice is to the last payload about it that the server has receipted. A base of each of the
  latest slices is kept, so that rounds may go from one to another and come back.
- Blocks of a consensus come in any order; they belong together by round and consensus digest. A consensus is taken into
  training once, and none of an earlier round after it. A later round may come to the same one: that is taken too, and
  the worker, who knows what it has learned, answers at once.
- A deadline ends a contribution, never a training. Work that fails three times ends its phase, and the report says why.
- While something keeps the machine from training, no training begins, and one that the worker has laid aside goes back
  to where it waited; rounds are predicted meanwhile.
- Under privacy terms the warm-up is the training that was paid for, no map is made or owed, changed rows are no reason
  to train, and of a failure no more is said than that there was one.

An event that does not fit changes nothing: late, doubled and foreign are one case. After a crash the fold over the
journal is the state, and `outstanding` asks again for whatever is not done.

What is deliberately absent: bytes, clocks, threads, retries in time (the shell's), the decision whether this device may
take part (`eligibility`), any model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from edge_agent.privacy.saying import public_reason
from edge_agent.round.events import (
    BundleChanged,
    ClockTicked,
    CompetenceMapped,
    ConditionsChanged,
    ConsensusBlockReceived,
    Effect,
    Event,
    OfferReceived,
    Predicted,
    PrivateDataChanged,
    ProbesNamed,
    ReceiptReceived,
    Refreshed,
    ReportSent,
    Send,
    SendReport,
    Submission,
    Task,
    Trained,
    WarmedUp,
    Work,
    WorkDeferred,
    WorkFailed,
)
from edge_agent.round.gathering import Consensus, gather, precedes
from fd_protocol.identity import DIGEST_BYTES, MAX_TEXT_CHARACTERS, RoundId
from fd_protocol.messages import Kind, PrivacyTerms, Receipt, RoundOffer, RoundReport, Slice, Status
from fd_protocol.schema import keyed

MAX_ATTEMPTS = 3
UNKNOWN_BASE = "unknown_base"
DEADLINE = "deadline"
NO_CONSENSUS = bytes(DIGEST_BYTES)
"""Stands in the report of a round that ended before its consensus."""
MAX_BASES = 32
"""Slices of which a base is kept. Those of one grid are disjoint, so together they are no more than the public set."""
_REMEMBERED = 8
"""Epochs left and consensus digests taken that a device remembers."""


class Phase(str, Enum):
    """Where a device stands; see the picture above."""

    IDLE = "idle"
    PREDICTING = "predicting"
    SUBMITTING = "submitting"
    AWAITING = "awaiting"
    TRAINING = "training"
    REPORTING = "reporting"
    REFRESHING = "refreshing"


@dataclass(frozen=True, slots=True)
class Base:
    """The last soft labels about `slice` that the server is known to hold, by digest."""

    payload: bytes = keyed(1)
    codes: bytes = keyed(2)
    slice: Slice = keyed(3)


@dataclass(frozen=True, slots=True)
class Competence:
    """The map of one public set and private epoch; `is_settled`: the server has answered it."""

    public_set: bytes = keyed(1)
    private_epoch: int = keyed(2)
    payload: bytes = keyed(3)
    is_settled: bool = keyed(4, default=False)


@dataclass(frozen=True, slots=True)
class Refreshing:
    """A training on changed private rows: which version of them, and the newest round when it began."""

    round: RoundId = keyed(1)
    private_epoch: int = keyed(2)


@dataclass(frozen=True, slots=True)
class Participant:
    """The whole memory of a device, small enough to print; what it names by digest lies in the store."""

    phase: Phase = keyed(1, default=Phase.IDLE)
    now_ms: int = keyed(2, default=0)
    """The latest time that counted; a clock that starts anew goes on from here."""
    offer: RoundOffer | None = keyed(3, default=None)
    """The newest round known."""
    deadline_ms: int = keyed(4, default=0)
    objection: str = keyed(5, default="")
    """Why the newest round goes on without this device."""
    is_due: bool = keyed(6, default=False)
    """The newest round asks for a contribution that was not begun."""
    left_epochs: tuple[int, ...] = keyed(7, default=())
    is_warm: bool = keyed(8, default=False)
    private_epoch: int = keyed(9, default=0)
    competence: Competence | None = keyed(10, default=None)
    submission: Submission | None = keyed(11, default=None)
    # 12 was the one base of agents that kept no more; theirs is sent in full once.
    gathering: Consensus | None = keyed(13, default=None)
    """The newest consensus, until training takes it."""
    training: Consensus | None = keyed(14, default=None)
    taken: tuple[bytes, ...] = keyed(15, default=())
    """Digests of the last consensuses that training took."""
    taken_round: RoundId | None = keyed(16, default=None)
    report: RoundReport | None = keyed(17, default=None)
    failures: int = keyed(18, default=0)
    """Failed attempts of this phase's work."""
    bases: tuple[Base, ...] = keyed(19, default=())
    """One a slice, the latest last."""
    named_sets: tuple[bytes, ...] = keyed(20, default=())
    """Digests of the public sets that rounds are about, or may come to be about, as the server says."""
    bundle: bytes = keyed(21, default=b"")
    """Digest of what the device runs; empty before the first start of an agent that tells."""
    privacy: PrivacyTerms = keyed(30, default=PrivacyTerms())
    """By which this device works in the newest round."""
    is_paid: bool = keyed(31, default=False)
    """Under these terms: the private training is over."""
    obstacle: str = keyed(32, default="")
    """What keeps the machine from training, as far as is known; empty: nothing."""
    lesson: Consensus | None = keyed(33, default=None)
    """The last consensus that was trained on: changed private rows are learned together with it."""
    known_epoch: int = keyed(34, default=0)
    """Version of the private rows that the model has learned."""
    begun_epoch: int = keyed(35, default=0)
    """Version that the training under way began with."""
    refreshing: Refreshing | None = keyed(36, default=None)
    warming_epoch: int | None = keyed(37, default=None)
    """Version that the warm-up began with, in whichever round; None: none has begun with this bundle, or it is over."""

    def base_of(self, part: Slice) -> Base | None:
        """Return what a difference about `part` may build on."""
        return next((base for base in self.bases if base.slice == part), None)


def step(state: Participant, event: Event) -> Participant:
    """Return the state after `event`."""
    return _note_warm_up(_go_on(_take(state, event)))


def outstanding(state: Participant) -> tuple[Effect, ...]:
    """Return everything that must be brought about in this state, the first first."""
    effects: list[Effect] = []
    if state.offer is not None and _owes_map(state, state.offer):
        assert state.competence is not None
        effects.append(Send(Kind.COMPETENCE, state.offer.round, state.competence.payload))
    match state:
        case Participant(phase=Phase.PREDICTING, offer=RoundOffer() as offer):
            if not _is_held_up(state, task := _next_task(state, offer)):
                private_epoch = state.private_epoch if task is Task.MAP_COMPETENCE else 0
                effects.append(Work(task, offer.round, state.failures, private_epoch))
        case Participant(phase=Phase.SUBMITTING, offer=RoundOffer() as offer, submission=Submission() as submission):
            effects.append(Send(Kind.CONTRIBUTION, offer.round, submission.payload))
        case Participant(phase=Phase.TRAINING, training=Consensus() as consensus):
            effects.append(Work(Task.TRAIN, consensus.round, state.failures))
        case Participant(phase=Phase.REFRESHING, refreshing=Refreshing() as refreshing):
            effects.append(Work(Task.REFRESH, refreshing.round, state.failures))
        case Participant(phase=Phase.REPORTING, report=RoundReport() as report):
            effects.append(SendReport(report.round))
    return tuple(effects)


def wake_at_ms(state: Participant) -> int | None:
    """Return when a `ClockTicked` would change the state; None = never."""
    return state.deadline_ms if state.is_due or state.phase in (Phase.PREDICTING, Phase.SUBMITTING) else None


def would_train(state: Participant) -> bool:
    """Whether a training waits for nothing but the machine: then it matters what keeps that from it."""
    if state.phase is Phase.PREDICTING:
        return state.offer is not None and _next_task(state, state.offer) is Task.WARM_UP
    if state.phase not in (Phase.IDLE, Phase.AWAITING) or state.offer is None:
        return False
    return (state.gathering is not None and state.gathering.is_complete) or _wants_refresh(state)


def named_blobs(state: Participant) -> frozenset[bytes]:
    """Return the digests of all bytes that the state may still ask for."""
    named: set[bytes] = set()
    if state.competence is not None:
        named.add(state.competence.payload)
    if state.submission is not None:
        named |= {state.submission.payload, state.submission.codes, state.submission.full}
    for base in state.bases:
        named |= {base.payload, base.codes}
    for consensus in (state.gathering, state.training, state.lesson):
        named |= set(consensus.messages) if consensus is not None else set()
    return frozenset(named - {b""})


def _take(state: Participant, event: Event) -> Participant:
    match event:
        case OfferReceived():
            return _open_round(state, event)
        case ConsensusBlockReceived() if _is_welcome(state, event):
            return replace(state, gathering=gather(state.gathering, event))
        case ReceiptReceived(receipt):
            return _settle_map(state, receipt) if receipt.kind is Kind.COMPETENCE else _settle(state, receipt)
        case WarmedUp(is_private, private_epoch):
            return replace(state, is_paid=True) if is_private else _end_warm_up(state, private_epoch)
        case CompetenceMapped(public_set, private_epoch, payload) if private_epoch == state.private_epoch:
            if _has_map(state, public_set):
                return state
            return replace(state, competence=Competence(public_set, private_epoch, payload))
        case Predicted(round_id, submission) if state.phase is Phase.PREDICTING and _is_current(state, round_id):
            return replace(state, phase=Phase.SUBMITTING, submission=submission)
        case Trained() if state.training is not None and event.consensus_sha256 == state.training.sha256:
            return _end_training(state, event)
        case Refreshed() if state.phase is Phase.REFRESHING and state.refreshing is not None:
            return replace(state, phase=Phase.IDLE, refreshing=None, known_epoch=event.private_epoch)
        case ReportSent(round_id) if state.report is not None and round_id == state.report.round:
            return replace(state, phase=Phase.IDLE, report=None)
        case WorkFailed(work, reason) if _is_asked_for(state, work):
            return _count_failure(state, work, reason)
        case WorkDeferred(work, reason) if work in outstanding(state):
            return _lay_aside(state, reason)
        case ConditionsChanged(obstacle):
            return replace(state, obstacle=obstacle)
        case PrivateDataChanged(private_epoch) if private_epoch != state.private_epoch:
            return replace(state, private_epoch=private_epoch, competence=None)
        case ProbesNamed(public_sets):
            return replace(state, named_sets=public_sets)
        case BundleChanged(bundle) if bundle != state.bundle:
            # The worker knows what it has learnt with this one, if anything: it is asked to warm up, and may decline.
            return replace(
                state, bundle=bundle, is_warm=state.is_warm and not state.bundle, is_paid=False, warming_epoch=None
            )
        case ClockTicked(at_ms, why):
            return _tick(state, at_ms, why)
    return state


def _go_on(state: Participant) -> Participant:
    """Where nothing is under way, begin what waits: an open round first, then a complete consensus."""
    if state.phase not in (Phase.IDLE, Phase.AWAITING):
        return state
    if state.is_due:
        return replace(state, phase=Phase.PREDICTING, is_due=False, failures=0)
    if state.obstacle or state.offer is None:  # the offer holds the training terms
        return state
    consensus = state.gathering
    if consensus is not None and consensus.is_complete:
        return replace(
            state,
            phase=Phase.TRAINING,
            gathering=None,
            training=consensus,
            taken=(*state.taken, consensus.sha256)[-_REMEMBERED:],
            taken_round=consensus.round,
            failures=0,
            begun_epoch=state.private_epoch,
        )
    if _wants_refresh(state):
        refreshing = Refreshing(state.offer.round, state.private_epoch)
        return replace(state, phase=Phase.REFRESHING, refreshing=refreshing, failures=0)
    return state


def _note_warm_up(state: Participant) -> Participant:
    """Where a warm-up begins, keep the version of its rows: it may be done in this round and answered in another."""
    if state.phase is not Phase.PREDICTING or state.offer is None or state.privacy.is_asked:
        return state
    task = _next_task(state, state.offer)
    if task is not Task.WARM_UP or _is_held_up(state, task) or state.warming_epoch is not None:
        return state
    return replace(state, warming_epoch=state.private_epoch)


def _end_warm_up(state: Participant, private_epoch: int | None) -> Participant:
    if private_epoch is None:
        return replace(state, is_warm=True, known_epoch=state.private_epoch, warming_epoch=None)
    if state.is_warm:  # asked for in several rounds, it is answered in each; and a training may have been sooner
        return state
    return replace(state, is_warm=True, known_epoch=private_epoch, warming_epoch=None)


def _wants_refresh(state: Participant) -> bool:
    """Whether the model knows other private rows than there are now, and nothing else is to be done."""
    is_behind = state.is_warm and state.known_epoch != state.private_epoch
    return is_behind and state.phase is Phase.IDLE and not state.privacy.is_asked


def _next_task(state: Participant, offer: RoundOffer) -> Task:
    if state.privacy.is_asked:
        return Task.PREDICT if state.is_paid else Task.WARM_UP
    if not state.is_warm:
        return Task.WARM_UP
    if offer.competence and not _has_map(state, offer.slice.public_set):
        return Task.MAP_COMPETENCE
    return Task.PREDICT


def _is_asked_for(state: Participant, work: Work) -> bool:
    """Whether a work is outstanding; one whose rows are not known, in an old journal, may be a map of any."""
    due = outstanding(state)
    return work in due or (not work.private_epoch and replace(work, private_epoch=state.private_epoch) in due)


def _is_held_up(state: Participant, task: Task) -> bool:
    return task is Task.WARM_UP and bool(state.obstacle)


def _has_map(state: Participant, public_set: bytes) -> bool:
    return state.competence is not None and state.competence.public_set == public_set


def _owes_map(state: Participant, offer: RoundOffer) -> bool:
    if not offer.competence or state.privacy.is_asked or not _has_map(state, offer.slice.public_set):
        return False
    return state.competence is not None and not state.competence.is_settled


def _is_current(state: Participant, round_id: RoundId) -> bool:
    return state.offer is not None and state.offer.round == round_id


def _is_busy(state: Participant) -> bool:
    return state.phase in (Phase.TRAINING, Phase.REPORTING, Phase.REFRESHING)


def _open_round(state: Participant, event: OfferReceived) -> Participant:
    offer = event.offer
    if offer.round.epoch in state.left_epochs:
        return state
    if state.offer is not None and offer.round.epoch != state.offer.round.epoch:
        state = _leave_epoch(state, state.offer.round.epoch)
    elif state.offer is not None and offer.round.number <= state.offer.round.number:
        return state
    if state.gathering is not None and state.gathering.round.epoch != offer.round.epoch:
        state = replace(state, gathering=None)
    return replace(
        state,
        phase=state.phase if _is_busy(state) else Phase.IDLE,
        now_ms=event.at_ms,
        offer=offer,
        deadline_ms=event.at_ms + 1000 * offer.remaining_s,
        objection=event.objection,
        is_due=not event.objection,
        submission=None,
        privacy=event.privacy,
        is_paid=event.is_paid,
    )


def _leave_epoch(state: Participant, epoch: int) -> Participant:
    """The server knows nothing of what it said before: no base stands, and the map must be answered anew."""
    competence = state.competence
    return replace(
        state,
        left_epochs=(*state.left_epochs, epoch)[-_REMEMBERED:],
        bases=(),
        competence=None if competence is None else replace(competence, is_settled=False),
    )


def _is_welcome(state: Participant, event: ConsensusBlockReceived) -> bool:
    """Whether a block is of our epoch, and of no consensus that training has taken or gone past.

    A later round may come to the very same consensus, where nobody has learned anything new. It is that round's.
    """
    if event.round.epoch in state.left_epochs:
        return False
    if state.offer is not None and event.round.epoch != state.offer.round.epoch:
        return False
    if event.round == state.taken_round:
        return event.consensus_sha256 not in state.taken
    return state.taken_round is None or not precedes(event.round, state.taken_round)


def _settle_map(state: Participant, receipt: Receipt) -> Participant:
    """Any answer settles the map: a refused one would be refused again, and the round goes on without it."""
    competence = state.competence
    if competence is None or receipt.payload_sha256 != competence.payload or receipt.status is Status.MISSING:
        return state
    return replace(state, competence=replace(competence, is_settled=True))


def _settle(state: Participant, receipt: Receipt) -> Participant:
    submission = state.submission
    if state.phase is not Phase.SUBMITTING or not _is_current(state, receipt.round):
        return state
    if submission is None or receipt.payload_sha256 != submission.payload:
        return state
    match receipt.status:
        case Status.STORED | Status.DUPLICATE:
            return replace(state, phase=Phase.AWAITING, bases=_with_base(state, submission))
        case Status.REFUSED if receipt.reason == UNKNOWN_BASE and submission.payload != submission.full:
            return replace(state, submission=replace(submission, payload=submission.full), bases=_other_bases(state))
        case Status.REFUSED:
            return _give_up(state, f"refused: {receipt.reason}")
    return state  # missing parts are sent again by the shell


def _with_base(state: Participant, submission: Submission) -> tuple[Base, ...]:
    """The oldest base gives way where there are many."""
    assert state.offer is not None
    return (*_other_bases(state), Base(submission.payload, submission.codes, state.offer.slice))[-MAX_BASES:]


def _other_bases(state: Participant) -> tuple[Base, ...]:
    """Return the bases but for that of the offered slice."""
    assert state.offer is not None
    return tuple(base for base in state.bases if base.slice != state.offer.slice)


def _end_training(state: Participant, event: Trained) -> Participant:
    assert state.training is not None
    report = RoundReport(
        state.training.round, event.consensus_sha256, event.accepted, event.reason, metrics=event.metrics
    )
    after = replace(state, phase=Phase.REPORTING, training=None, lesson=state.training, report=report)
    return after if event.is_private else replace(after, is_warm=True, known_epoch=state.begun_epoch)


def _lay_aside(state: Participant, reason: str) -> Participant:
    """The work goes back to where it waited. A consensus after which a newer one has come need not be learned."""
    state = replace(state, obstacle=reason)
    if state.phase is Phase.REFRESHING:
        return replace(state, phase=Phase.IDLE, refreshing=None)
    if state.phase is not Phase.TRAINING or state.training is None:
        return state
    laid = state.training
    taken = tuple(digest for digest in state.taken if digest != laid.sha256)
    return replace(state, phase=Phase.IDLE, gathering=state.gathering or laid, training=None, taken=taken)


def _count_failure(state: Participant, work: Work, reason: str) -> Participant:
    if state.failures + 1 < MAX_ATTEMPTS:
        return replace(state, failures=state.failures + 1)
    if work.task is Task.REFRESH and state.refreshing is not None:
        return replace(state, phase=Phase.IDLE, refreshing=None, known_epoch=state.refreshing.private_epoch)
    why = f"{work.task.value}: {public_reason(reason) if state.privacy.is_asked else reason}"
    if work.task is not Task.TRAIN or state.training is None:
        return _give_up(state, why)
    report = RoundReport(state.training.round, state.training.sha256, accepted=False, reason=one_line(why))
    return replace(state, phase=Phase.REPORTING, training=None, report=report)


def _tick(state: Participant, at_ms: int, why: str) -> Participant:
    wake = wake_at_ms(state)
    if wake is None or at_ms < wake:
        return state
    state = replace(state, now_ms=at_ms, is_due=False)
    if _is_busy(state) or state.phase is Phase.IDLE:
        return state
    return _give_up(state, f"{DEADLINE}: {why}" if why and not state.privacy.is_asked else DEADLINE)


def _give_up(state: Participant, reason: str) -> Participant:
    """The round ends without a contribution of ours."""
    assert state.offer is not None
    report = RoundReport(state.offer.round, NO_CONSENSUS, accepted=False, reason=one_line(reason))
    return replace(state, phase=Phase.REPORTING, submission=None, report=report)


def one_line(text: str) -> str:
    """Whatever a library has to say about a failure, as a report may carry it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_TEXT_CHARACTERS]
