"""The device's loop: what arrives becomes an event, the journal keeps it, the participant says what follows.

    link ----+                      +--> journal (events and bytes, one transaction)
             +--> inbox --> pump ---+--> participant: step, outstanding --> link, worker
    worker --+                      +--> acknowledgement to the broker

Order is the safety: bytes and event are durable before anything is published, and before the broker is told that a
message was taken. Where the disk is full an event waits here, in order, unacknowledged, and the device says so.

What is deliberately absent: the rules of a round (`participant`), models (`worker`), threads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeAlias, cast

from edge_agent import participant, presence
from edge_agent.eligibility import Profile
from edge_agent.events import (
    ClockTicked,
    ConditionsChanged,
    Effect,
    Event,
    PrivateDataChanged,
    ReceiptReceived,
    ReportSent,
    Send,
    SendReport,
    Task,
    Work,
    WorkDeferred,
)
from edge_agent.gathering import Consensus
from edge_agent.incoming import Entry, is_server_birth, read
from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.participant import Participant
from edge_agent.process.notices import Alarm, Beat, Measured, Notice, PrivateRowsChanged, Spoke
from edge_agent.reservations import Reserved, nothing
from edge_agent.worker import WORKER_DOWN, Said, Worker, WorkerRefusal, WorkerRefusedError
from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.label_set import label_set
from fd_protocol.messages import (
    MAX_PAYLOAD_BYTES,
    Contribution,
    DeviceState,
    Receipt,
    RoundOffer,
    Status,
    TrainingTerms,
)
from fd_protocol.topics import Topics
from fd_runtime.link import Arrived, Link, LinkDown, LinkEvent, LinkUp, Published, PublishRefused
from fd_runtime.reconciler import Reconciler
from fd_runtime.store import Store, StoreFullError

Inbox: TypeAlias = "SimpleQueue[LinkEvent | Said | None]"

DISK_FULL = "disk_full"
KEEPS_AWAY = (DISK_FULL, WORKER_DOWN)
"""Alarms that keep a device from taking part; a birth tells the first of them. No round waits for such a device."""
_DISK_RETRY_MS = 5_000
_TRAININGS = frozenset({Task.WARM_UP, Task.TRAIN, Task.REFRESH})
_LOOK_MS = 5_000
"""How often the machine is looked at while a training waits for it."""

log = logging.getLogger("edge-agent")


class Agent:
    """One device. `presence.begin_life` has counted this life, and the link carries its will.

    Args:
        profile: what the device is.
        store: its memory; nobody else writes to it.
        link: to the broker.
        worker: holds the model; delivers to the link's queue, so that one wait hears everything.
        clock: monotonic milliseconds; where they start does not matter.
        version: of this program, for the birth.
        on_spoke: hears of predictions that somebody wants to hear of.
        reserve: what the device holds against an offer beyond what it is, and by which privacy terms it works.
        obstacle: what keeps the machine from training, given what did when it was last asked; empty: nothing.

    Attributes:
        measured: the newest numbers that the worker told, by name.
        alarms: what is wrong, by name.
    """

    def __init__(
        self,
        profile: Profile,
        store: Store,
        link: Link,
        worker: Worker,
        clock: Callable[[], int],
        *,
        version: str = "",
        on_spoke: Callable[[Spoke], None] = lambda _: None,
        reserve: Callable[[RoundOffer], Reserved] = nothing,
        obstacle: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._profile, self._link, self._worker = profile, link, worker
        self._topics = Topics(profile.federation)
        self._version, self._boot = f"edge-agent {version}".strip(), presence.boot_of(store)
        self._inbox = cast("Inbox", link.events)
        self._journal = Journal(store, profile.federation)
        self._outbox = Outbox(link)
        self._backlog: deque[tuple[Entry, Arrived | None]] = deque()
        self._report_token = 0
        self._on_spoke, self._reserve, self._obstacle = on_spoke, reserve, obstacle
        self._looked_at_ms: int | None = None
        self.measured: dict[str, float] = {}
        self.alarms: dict[str, str] = {}
        self._disk_retry_ms = 0
        self._reconciler: Reconciler[Participant, Event, Effect] = Reconciler(
            self._journal.replay(), participant.step, participant.outstanding, self._write, self._perform
        )
        # A machine that starts anew counts from zero; the agent's time goes on from what it last wrote down.
        self._clock, self._clock_offset_ms = clock, self.state.now_ms - clock()
        self._birth_token = self._announce()
        self._take(Entry(PrivateDataChanged(profile.private_epoch)))

    @property
    def state(self) -> Participant:
        return self._reconciler.state

    @property
    def now_ms(self) -> int:
        """Milliseconds of this device's life, over all its starts."""
        return self._clock() + self._clock_offset_ms

    def pump(self, timeout_s: float) -> bool:
        """Take in what has come, waiting at most `timeout_s` for the first; return whether anything happened.

        Raises:
            WorkerRefusedError: the worker will not start with these settings.
        """
        before = self.state
        count = self._drain(self.wait_s(timeout_s))
        self._keep_time()
        self._settle_backlog()
        self._reconciler.reconcile()
        self._outbox.keep(self._sends())
        return count > 0 or self.state is not before

    def wake(self) -> None:
        """End the wait of a `pump`; may be called from a signal handler."""
        self._inbox.put(None)

    def leave(self) -> None:
        """Publish that the device goes on purpose."""
        self._publish_state(presence.will(self._boot))

    def wait_s(self, timeout_s: float) -> float:
        """Return after how many seconds, at most `timeout_s`, there is something to do even if nothing comes in."""
        wake_ms = self._disk_retry_ms if self._backlog else participant.wake_at_ms(self.state)
        return timeout_s if wake_ms is None else max(0.0, min(timeout_s, (wake_ms - self.now_ms) / 1000))

    # Coming in.

    def _drain(self, timeout_s: float) -> int:
        try:
            self._handle(self._inbox.get(timeout=timeout_s))
        except Empty:
            return 0
        more = self._inbox.qsize()
        for _ in range(more):
            self._handle(self._inbox.get_nowait())
        return 1 + more

    def _handle(self, item: LinkEvent | Said | None) -> None:
        match item:
            case Arrived():
                self._receive(item)
            case Answer(event, blobs):
                if isinstance(event, WorkDeferred):
                    self._looked_at_ms = self.now_ms
                self._take(Entry(event, blobs))
            case Published(token):
                self._confirm(token)
            case PublishRefused(token, reason):
                self._bear_refusal(token, reason)
            case LinkUp():
                log.info("connected")
                if not self._birth_token:  # else the link itself is about to send it
                    self._birth_token = self._announce()
                self._send_again(self._outbox.unanswered())
            case LinkDown(reason):
                log.warning("not connected: %s", reason)
            case WorkerRefusal(exit_code):
                raise WorkerRefusedError(exit_code)
            case PrivateRowsChanged() | Measured() | Spoke() | Alarm() | Beat():
                self._notice(item)

    def _notice(self, notice: Notice) -> None:
        match notice:
            case PrivateRowsChanged(private_epoch):
                self._take(Entry(PrivateDataChanged(private_epoch)))
            case Measured(values):
                self.measured.update(values)
            case Spoke():
                self._on_spoke(notice)
            case Alarm(name, text):
                self._sound(name, text)

    def _receive(self, arrived: Arrived) -> None:
        """Take a message in; what is no message of ours is dropped with a word, and never comes again."""
        try:
            entry = read(arrived.topic, arrived.payload, self._profile, self.now_ms, self._reserve)
            if not arrived.retained and is_server_birth(arrived.topic, arrived.payload):
                # What came to a broker that forgot its sessions, before the server was back, went to nobody.
                self._send_again(self._outbox.unanswered())
        except DecodeError as error:
            log.warning("dropped a message on %s: %s", arrived.topic, error)
            entry = None
        if entry is None:
            self._link.ack(arrived)
            return
        if isinstance(entry.event, ReceiptReceived):
            self._send_missing(entry.event.receipt)
        self._take(entry, arrived)

    def _confirm(self, token: int) -> None:
        self._outbox.confirm(token)
        if token == self._birth_token:
            self._birth_token = 0
        if token == self._report_token and self.state.report is not None:
            self._take(Entry(ReportSent(self.state.report.round)))

    def _bear_refusal(self, token: int, reason: str) -> None:
        """What the broker will never carry counts as refused, or as said: sending it again would be of no use."""
        log.error("the broker refused a message: %s", reason)
        send = self._outbox.owner(token)
        if send is not None:
            refusal = Receipt(send.round, send.kind, send.payload, Status.REFUSED, f"broker: {reason}")
            self._take(Entry(ReceiptReceived(refusal)))
        self._confirm(token)

    # Taking in: the journal first, then the fold and what follows, then the acknowledgement.

    def _take(self, entry: Entry, arrived: Arrived | None = None) -> None:
        self._backlog.append((entry, arrived))
        self._settle_backlog()

    def _settle_backlog(self) -> None:
        if DISK_FULL in self.alarms and self.now_ms < self._disk_retry_ms:
            return
        try:
            while self._backlog:
                self._settle(*self._backlog[0])
                self._backlog.popleft()
            self._journal.compact(self.state)
        except StoreFullError as error:
            self._disk_retry_ms = self.now_ms + _DISK_RETRY_MS
            self._sound(DISK_FULL, str(error))
        else:
            self._sound(DISK_FULL, "")

    def _settle(self, entry: Entry, arrived: Arrived | None) -> None:
        before = self.state
        if participant.step(before, entry.event) != before:  # what changes nothing is not worth a write
            self._reconciler.submit([entry.event])
        if self.state.phase is not before.phase:
            log.info("%s: %s -> %s", _round_name(self.state), before.phase.value, self.state.phase.value)
        if arrived is not None:
            self._link.ack(arrived)

    def _write(self, events: Sequence[Event]) -> None:
        """The reconciler's journal: its events are always the first of the backlog."""
        self._journal.write(events, self._backlog[0][0].blobs, self.now_ms)

    # Going out.

    def _keep_time(self) -> None:
        wake_ms = participant.wake_at_ms(self.state)
        if not self._backlog and wake_ms is not None and self.now_ms >= wake_ms:
            self._take(Entry(ClockTicked(self.now_ms)))
        self._send_again(self._outbox.overdue(self.now_ms))
        self._keep_conditions()

    def _keep_conditions(self) -> None:
        """Where a training waits for nothing but the machine, look whether it may begin."""
        if self._backlog or not (self.state.obstacle and participant.would_train(self.state)):
            return
        if self._looked_at_ms is not None and self.now_ms < self._looked_at_ms + _LOOK_MS:
            return
        self._looked_at_ms = self.now_ms
        obstacle = self._obstacle(self.state.obstacle)
        if obstacle != self.state.obstacle:
            self._take(Entry(ConditionsChanged(obstacle)))

    def _send_again(self, sends: Iterable[Send]) -> None:
        for send in sends:
            self._reconciler.forget(send)

    def _sends(self) -> list[Send]:
        return [effect for effect in participant.outstanding(self.state) if isinstance(effect, Send)]

    def _send_missing(self, receipt: Receipt) -> None:
        for send in self._sends():
            if receipt.missing and send.payload == receipt.payload_sha256:
                self._post(send, receipt.missing)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Work(task) if task in _TRAININGS and (obstacle := self._obstacle(self.state.obstacle)):
                self._inbox.put(Answer(WorkDeferred(effect, obstacle)))
            case Work():
                self._worker.submit(self._job(effect))
            case Send():
                self._post(effect)
            case SendReport():
                assert self.state.report is not None
                topic = self._topics.report(self._profile.device)
                self._report_token = self._link.publish(topic, codec.encode(self.state.report))

    def _post(self, send: Send, only: Sequence[int] = ()) -> None:
        assert self.state.offer is not None
        topic = self._topics.upload(self._profile.device, self.state.offer.shards)
        self._outbox.post(send, self._journal.blob(send.payload), topic, self.now_ms, only)

    def _job(self, work: Work) -> Job:
        offer, consensus, privacy = self.state.offer, self.state.training, self.state.privacy
        assert offer is not None
        match work.task:
            case Task.WARM_UP:
                return WarmUpJob(work, offer.training, privacy)
            case Task.MAP_COMPETENCE:
                return CompetenceJob(work, self.state.private_epoch)
            case Task.PREDICT:
                return PredictJob(work, offer, *self._base_for(offer), privacy)
            case Task.TRAIN:
                assert consensus is not None
                messages = tuple(self._journal.blob(digest) for digest in consensus.messages)
                own = self._own_codes(consensus)
                return TrainJob(work, consensus.sha256, messages, offer.training, own, privacy)
            case Task.REFRESH:
                return self._refresh_job(work, offer.training)

    def _refresh_job(self, work: Work, terms: TrainingTerms) -> Job:
        refreshing, lesson = self.state.refreshing, self.state.lesson
        assert refreshing is not None
        if lesson is None:
            return RefreshJob(work, refreshing.private_epoch, terms)
        messages = tuple(self._journal.blob(digest) for digest in lesson.messages)
        return RefreshJob(work, refreshing.private_epoch, terms, lesson.sha256, messages)

    def _base_for(self, offer: RoundOffer) -> tuple[bytes, bytes]:
        """Return digest and codes of the base, if it is about the same probes in the same coding as `offer`."""
        base = self.state.base
        if base is None:
            return b"", b""
        last = codec.decode(self._journal.blob(base.payload), Contribution, limit=MAX_PAYLOAD_BYTES)
        if (last.slice, last.codec, last.top_k) != (offer.slice, offer.codec, offer.top_k):
            return b"", b""
        return base.payload, self._journal.blob(base.codes)

    def _own_codes(self, consensus: Consensus) -> bytes:
        """Return the codes that this device added to a consensus over labels: its target is made by the others."""
        offer, submission, base = self.state.offer, self.state.submission, self.state.base
        if offer is None or offer.slice.public_set != label_set(self._profile.task):
            return b""
        if submission is None or base is None or (offer.round, base.payload) != (consensus.round, submission.payload):
            return b""
        return self._journal.blob(base.codes)

    def _sound(self, name: str, text: str) -> None:
        """Note an alarm, or with an empty text its end; the federation hears of those that keep the device away."""
        if self.alarms.get(name, "") == text:
            return
        before = self._problem
        if text:
            log.warning("%s: %s", name, text)
            self.alarms[name] = text
        else:
            log.warning("%s is over", name)
            del self.alarms[name]
        if self._problem != before:
            self._birth_token = self._announce()

    @property
    def _problem(self) -> str:
        return next((name for name in KEEPS_AWAY if name in self.alarms), "")

    def _announce(self) -> int:
        return self._publish_state(presence.birth(self._profile, self._boot, self._version, problem=self._problem))

    def _publish_state(self, state: DeviceState) -> int:
        return self._link.publish(self._topics.state(self._profile.device), codec.encode(state), retain=True)


def _round_name(state: Participant) -> str:
    return "no round" if state.offer is None else f"round {state.offer.round.number}"
