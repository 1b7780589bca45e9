"""The device's loop: what arrives becomes an event, the journal keeps it, the participant says what follows.

    link ----+                      +--> journal (events and bytes, one transaction)
             +--> inbox --> pump ---+--> participant: step, outstanding --> link, worker
    worker --+                      +--> acknowledgement to the broker

Order is the safety: bytes and event are durable before anything is published, and before the broker is told that a
message was taken. Where the disk is full an event waits here, in order, unacknowledged, and the device says so.

What is deliberately absent: the rules of a round (`participant`), models (`worker`), commands (`commands`), threads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from edge_agent import participant, presence
from edge_agent.commands.desk import CommandDesk
from edge_agent.commands.doing import one_line
from edge_agent.eligibility import Profile
from edge_agent.events import (
    ClockTicked,
    Effect,
    Event,
    PrivateDataChanged,
    ReceiptReceived,
    ReportSent,
    Send,
    SendReport,
    Task,
    Work,
)
from edge_agent.gathering import Consensus
from edge_agent.incoming import Entry, is_server_birth, read
from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, TrainJob, WarmUpJob
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.participant import Participant
from edge_agent.vitals import Vitals
from edge_agent.worker import Worker, WorkerDown, WorkerRefusal, WorkerRefusedError, WorkerUp
from fd_protocol import codec
from fd_protocol.errors import DecodeError, FedistillError
from fd_protocol.label_set import label_set
from fd_protocol.messages import MAX_PAYLOAD_BYTES, Contribution, DeviceState, Receipt, RoundOffer, Status
from fd_protocol.topics import Topics, parse
from fd_runtime.link import Arrived, Link, LinkDown, LinkEvent, LinkUp, Published, PublishRefused
from fd_runtime.reconciler import Reconciler
from fd_runtime.store import Store, StoreFullError

Heard: TypeAlias = "LinkEvent | Answer | WorkerUp | WorkerDown | WorkerRefusal | None"
Inbox: TypeAlias = "SimpleQueue[Heard]"

DISK_FULL = "disk_full"
_DISK_RETRY_MS = 5_000

log = logging.getLogger("edge-agent")


class RestartWantedError(FedistillError):
    """The device is to begin another life, with the settings of then."""


class Agent:
    """One device. `presence.begin_life` has counted this life, and the link carries its will.

    Args:
        profile: what the device is.
        store: its memory; nobody else writes to it.
        link: to the broker.
        worker: holds the model; delivers to the link's queue, so that one wait hears everything.
        clock: monotonic milliseconds; where they start does not matter.
        version: of this program, for the birth.
        pid: of this process, and `since_utc_s` when this life began: for the vitals.
        on_vitals: is told how the device is whenever that changes.
        restart_worker: makes the worker begin anew, where it is a process.
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
        pid: int = 0,
        since_utc_s: int = 0,
        on_vitals: Callable[[Vitals], None] = lambda _vitals: None,
        restart_worker: Callable[[], None] = lambda: None,
    ) -> None:
        self._profile, self._link, self._worker = profile, link, worker
        self._vitals, self._on_vitals = Vitals(pid, presence.boot_of(store), since_utc_s), on_vitals
        self._restart_worker = restart_worker
        self._desk: CommandDesk | None = None
        self._wants_restart = False
        self._topics = Topics(profile.federation)
        self._version, self._boot = f"edge-agent {version}".strip(), presence.boot_of(store)
        self._inbox = cast("Inbox", link.events)
        self._journal = Journal(store, profile.federation)
        self._outbox = Outbox(link)
        self._backlog: deque[tuple[Entry, Arrived | None]] = deque()
        self._report_token = 0
        self._problem, self._disk_retry_ms = "", 0
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
    def profile(self) -> Profile:
        return self._profile

    @property
    def vitals(self) -> Vitals:
        return self._vitals

    @property
    def now_ms(self) -> int:
        """Milliseconds of this device's life, over all its starts."""
        return self._clock() + self._clock_offset_ms

    def pump(self, timeout_s: float) -> bool:
        """Take in what has come, waiting at most `timeout_s` for the first; return whether anything happened.

        Raises:
            WorkerRefusedError: the worker will not start with these settings.
            RestartWantedError: `restart` was called.
        """
        before = self.state
        count = self._drain(self.wait_s(timeout_s))
        self._keep_time()
        self._settle_backlog()
        self._reconciler.reconcile()
        self._outbox.keep(self._sends())
        if self._desk is not None:
            self._desk.tick()
        if self._wants_restart:
            raise RestartWantedError("settings have changed")
        return count > 0 or self.state is not before

    def obey(self, desk: CommandDesk) -> None:
        """Let `desk` have the commands that come in from now on."""
        self._desk = desk

    # What commands may do with it (`commands.body`).

    def submit(self, job: Job) -> None:
        self._worker.submit(job)

    def restart_worker(self) -> None:
        self._restart_worker()

    def restart(self) -> None:
        self._wants_restart = True

    def wake(self) -> None:
        """End the wait of a `pump`; may be called from a signal handler."""
        self._inbox.put(None)

    def leave(self) -> None:
        """Publish that the device goes on purpose."""
        self._publish_state(presence.will(self._boot))

    def wait_s(self, timeout_s: float) -> float:
        """Return after how many seconds, at most `timeout_s`, there is something to do even if nothing comes in."""
        wake_ms = self._disk_retry_ms if self._backlog else participant.wake_at_ms(self.state)
        desk_s = self._desk.wait_s() if self._desk is not None else None
        timeout_s = timeout_s if desk_s is None else min(timeout_s, desk_s)
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

    def _handle(self, item: Heard) -> None:
        match item:
            case Arrived() if self._desk is not None and _is_command(item):
                self._desk.hear(item)
            case Arrived():
                self._receive(item)
            case Answer() if self._desk is not None and self._desk.answered(item):
                pass
            case Answer(event, blobs):
                self._take(Entry(event, blobs))
            case Published(token):
                self._confirm(token)
            case PublishRefused(token, reason):
                self._bear_refusal(token, reason)
            case WorkerUp():
                self._feel(is_worker_ready=True, worker_starts=self._vitals.worker_starts + 1)
            case WorkerDown():
                self._feel(is_worker_ready=False)
            case LinkUp():
                log.info("connected")
                self._feel(is_connected=True, link="")
                if not self._birth_token:  # else the link itself is about to send it
                    self._birth_token = self._announce()
                self._send_again(self._outbox.unanswered())
            case LinkDown(reason):
                log.warning("not connected: %s", reason)
                self._feel(is_connected=False, link=one_line(reason))
            case WorkerRefusal(exit_code):
                raise WorkerRefusedError(exit_code)

    def _receive(self, arrived: Arrived) -> None:
        """Take a message in; what is no message of ours is dropped with a word, and never comes again."""
        try:
            entry = read(arrived.topic, arrived.payload, self._profile, self.now_ms)
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
        if self._desk is not None:
            self._desk.published(token)
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
        if self._problem and self.now_ms < self._disk_retry_ms:
            return
        try:
            while self._backlog:
                self._settle(*self._backlog[0])
                self._backlog.popleft()
            self._journal.compact(self.state)
        except StoreFullError as error:
            self._disk_retry_ms = self.now_ms + _DISK_RETRY_MS
            self._say(DISK_FULL, str(error))
        else:
            self._say("", "the disk has room again")

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
        offer, consensus = self.state.offer, self.state.training
        assert offer is not None
        match work.task:
            case Task.WARM_UP:
                return WarmUpJob(work, offer.training)
            case Task.MAP_COMPETENCE:
                return CompetenceJob(work, self.state.private_epoch)
            case Task.PREDICT:
                return PredictJob(work, offer, *self._base_for(offer))
            case Task.TRAIN:
                assert consensus is not None
                messages = tuple(self._journal.blob(digest) for digest in consensus.messages)
                return TrainJob(work, consensus.sha256, messages, offer.training, self._own_codes(consensus))

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

    def _say(self, problem: str, detail: str) -> None:
        if problem != self._problem:
            log.warning("%s", detail)
            self._problem = problem
            self._feel(problem=problem)
            self._birth_token = self._announce()

    def _feel(self, **changes: Any) -> None:
        vitals = replace(self._vitals, **changes)
        if vitals != self._vitals:
            self._vitals = vitals
            self._on_vitals(vitals)

    def _announce(self) -> int:
        return self._publish_state(presence.birth(self._profile, self._boot, self._version, problem=self._problem))

    def _publish_state(self, state: DeviceState) -> int:
        return self._link.publish(self._topics.state(self._profile.device), codec.encode(state), retain=True)


def _is_command(arrived: Arrived) -> bool:
    try:
        return parse(arrived.topic).leaf == "cmd"
    except DecodeError:
        return False


def _round_name(state: Participant) -> str:
    return "no round" if state.offer is None else f"round {state.offer.round.number}"
