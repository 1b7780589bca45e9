"""The device's loop: what arrives becomes an event, the journal keeps it, the participant says what follows.

    link ----+                      +--> journal (events and bytes, one transaction)
             +--> inbox --> pump ---+--> participant: step, outstanding --> link, worker
    worker --+                      +--> acknowledgement to the broker

Order is the safety: bytes and event are durable before anything is published, and before the broker is told that a
message was taken. Where the disk takes nothing an event waits here, in order, unacknowledged, and the device says so.

What is deliberately absent: the rules of a round (`participant`), models (`worker`), commands (`commands`), threads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from edge_agent import presence
from edge_agent.care.vitals import Vitals
from edge_agent.commands.desk import CommandDesk
from edge_agent.jobs import Answer, Job
from edge_agent.process.attempts import MAX_LIVES, Attempts
from edge_agent.process.notices import Alarm, Beat, Measured, Notice, PrivateRowsChanged, Spoke
from edge_agent.reservations import Reserved, nothing
from edge_agent.round import participant
from edge_agent.round.briefing import job_of
from edge_agent.round.eligibility import Profile
from edge_agent.round.events import (
    BundleChanged,
    ClockTicked,
    ConditionsChanged,
    Effect,
    Event,
    PrivateDataChanged,
    ProbesNamed,
    ReceiptReceived,
    ReportSent,
    Send,
    SendReport,
    Task,
    Work,
    WorkDeferred,
    WorkFailed,
)
from edge_agent.round.incoming import Entry, is_server_birth, read, release_for
from edge_agent.round.journal import Journal
from edge_agent.round.outbox import Outbox
from edge_agent.round.participant import Participant, Phase, one_line
from edge_agent.speaking import Speaker
from edge_agent.spool import Message, Spool
from edge_agent.worker import WORKER_DOWN, Said, Worker, WorkerDown, WorkerRefusal, WorkerRefusedError, WorkerUp
from fd_protocol import codec
from fd_protocol.errors import DecodeError, FedistillError, InvalidValueError
from fd_protocol.messages import (
    DeviceState,
    Kind,
    Receipt,
    Release,
    RoundOffer,
    Status,
)
from fd_protocol.topics import Topics, parse
from fd_runtime.links.link import (
    MESSAGE_EXPIRED,
    PACKET_TOO_LARGE,
    Arrived,
    Link,
    LinkDown,
    LinkEvent,
    LinkUp,
    Published,
    PublishRefused,
)
from fd_runtime.reconciler import Reconciler
from fd_runtime.storage.store import Store, StoreFullError, StoreUnwritableError

Inbox: TypeAlias = "SimpleQueue[LinkEvent | Said | None]"

DISK_FULL, DISK_READ_ONLY = "disk_full", "disk_read_only"
KEEPS_AWAY = (DISK_FULL, DISK_READ_ONLY, WORKER_DOWN)
"""Alarms that keep a device from taking part; a birth tells the first of them. No round waits for such a device."""
_DISK_RETRY_MS = 5_000
_LATE_MS = 24 * 3_600_000
"""So long after its round a contribution waits for a server that is away (docs/adr/0012); nobody sends it anew then."""
_TRAININGS = frozenset({Task.WARM_UP, Task.TRAIN, Task.REFRESH})
_LOOK_MS = 60_000
"""How often the agent looks whether a public set that is lacking has come."""
_CONDITIONS_MS = 5_000
"""How often the machine is looked at while a training waits for it."""

log = logging.getLogger("edge-agent")


class RestartWantedError(FedistillError):
    """The device is to begin another life, with the settings of then."""


class SwitchWantedError(RestartWantedError):
    """The device is to begin another life, with another bundle: nobody knows yet whether it will come up with that."""


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
        spool: keeps what `say` is given until the broker has it, may have served another life, and goes on with `link`;
            None = the link does, in memory.
        on_release: hears which bundle devices of this family should run.
        on_round_end: hears that a round has ended for this device.
        find_set: looks on the disk for a public set, by digest, and tells how many probes it has; 0 = it is not there.
        pid: of this process, and `since_utc_s` when this life began: for the vitals.
        restart_worker: makes the worker begin anew, where it is a process.
        reserve: what the device holds against an offer beyond what it is, and by which privacy terms it works.
        obstacle: what keeps the machine from training, given what did when it was last asked; empty: nothing.

    Attributes:
        connection: the last that the link told: up, or why not; None = nothing yet.
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
        spool: Spool | None = None,
        on_release: Callable[[Release], None] = lambda _: None,
        on_round_end: Callable[[], None] = lambda: None,
        find_set: Callable[[bytes], int] = lambda _digest: 0,
        pid: int = 0,
        since_utc_s: int = 0,
        restart_worker: Callable[[], None] = lambda: None,
        reserve: Callable[[RoundOffer], Reserved] = nothing,
        obstacle: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._find_set, self._look_at_ms = find_set, 0
        self._profile, self._link, self._worker = profile, link, worker
        self._vitals = Vitals(pid, presence.boot_of(store), since_utc_s)
        self._restart_worker = restart_worker
        self._desk: CommandDesk | None = None
        self._wants_restart = False
        self._topics = Topics(profile.federation)
        self._version, self._boot = f"edge-agent {version}".strip(), presence.boot_of(store)
        self._inbox = cast("Inbox", link.events)
        self._journal = Journal(store, profile.federation)
        self._outbox = Outbox(link)
        self._speaker = Speaker(link, self._topics.prediction(profile.device))
        self._backlog: deque[tuple[Entry, Arrived | None]] = deque()
        self._report_token = 0
        self._on_spoke, self._on_release, self._on_round_end, self._spool = on_spoke, on_release, on_round_end, spool
        if spool is not None:
            spool.recall()  # the link of the life before numbered its messages from one, as this one does
        self._reserve, self._obstacle = reserve, obstacle
        self._looked_at_ms: int | None = None
        self._attempts = Attempts(store, self._boot)
        self.connection: LinkUp | LinkDown | None = None
        self.measured: dict[str, float] = {}
        self.alarms: dict[str, str] = {}
        self._disk_retry_ms = 0
        self._reconciler: Reconciler[Participant, Event, Effect] = Reconciler(
            self._journal.replay(), participant.step, participant.outstanding, self._write, self._perform
        )
        # A machine that starts anew counts from zero; the agent's time goes on from what it last wrote down.
        self._clock, self._clock_offset_ms = clock, self.state.now_ms - clock()
        self._birth_token = self._announce()
        if not profile.has_store:  # else the worker tells of its rows as soon as it has them
            self._take(Entry(PrivateDataChanged(profile.private_epoch)))
        self._take(Entry(BundleChanged(profile.bundle)))

    @property
    def state(self) -> Participant:
        return self._reconciler.state

    @property
    def is_quiet(self) -> bool:
        """Whether a restart would interrupt nothing: no round is due or under way."""
        return self.state.phase in (Phase.IDLE, Phase.AWAITING) and not self.state.is_due and not self._backlog

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def vitals(self) -> Vitals:
        return self._vitals

    @property
    def is_under_terms(self) -> bool:
        """See `commands.body`."""
        return self._profile.is_private or self.state.privacy.is_asked

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
        if self._spool is not None and self.is_connected:
            self._spool.send(self._link, self.now_ms)
        if self._desk is not None:
            self._desk.tick()
        if self._wants_restart:
            raise RestartWantedError("settings have changed")
        return count > 0 or self.state is not before

    @property
    def is_connected(self) -> bool:
        return isinstance(self.connection, LinkUp)

    @property
    def waiting(self) -> int:
        """Messages that `say` was given and the broker does not have."""
        return 0 if self._spool is None else len(self._spool)

    @property
    def lost(self) -> dict[str, int]:
        """How many of them it never got, by reason."""
        return {} if self._spool is None else asdict(self._spool.losses)

    def say(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expires_in_s: int | None = None,
        durable: bool = True,
    ) -> None:
        """Publish what nobody receipts, now or when there is a broker; see `Spool`."""
        if self._spool is None:
            self._link.publish(topic, payload, retain=retain, expiry_s=expires_in_s)
            return
        expires_at_ms = 0 if expires_in_s is None else self.now_ms + 1000 * expires_in_s
        self._spool.put(Message(topic, payload, retain, expires_at_ms), durable=durable)

    def obey(self, desk: CommandDesk) -> None:
        """Let `desk` have the commands that come in from now on."""
        self._desk = desk

    # What commands may do with it (`commands.body`).

    def reserved(self, offer: RoundOffer) -> Reserved:
        return self._reserve(offer)

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

    def _handle(self, item: LinkEvent | Said | None) -> None:
        match item:
            case Arrived() if self._desk is not None and _is_command(item):
                self._desk.hear(item)
            case Arrived():
                self._receive(item)
            case Answer() if self._desk is not None and self._desk.answered(item):
                pass
            case Answer(event, blobs):
                if isinstance(event, WorkDeferred):
                    self._looked_at_ms = self.now_ms
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
                self._feel(is_connected=True, link="")
                self._come_up(item)
            case LinkDown(reason):
                self._feel(is_connected=False, link=one_line(reason))
                self._go_down(item)
            case WorkerRefusal(exit_code):
                raise WorkerRefusedError(exit_code)
            case PrivateRowsChanged() | Measured() | Spoke() | Alarm() | Beat():
                self._notice(item)

    def _come_up(self, up: LinkUp) -> None:
        log.info("connected")
        self.connection = up
        self._outbox.fit(up.max_packet_bytes)
        if not self._birth_token:  # else the link itself is about to send it
            self._birth_token = self._announce()
        self._send_again(self._outbox.unanswered())

    def _go_down(self, down: LinkDown) -> None:
        """Note it, and say it where it is news: an absent broker is tried many times a day."""
        if self.connection != down:
            log.warning("not connected: %s", down.reason)
        self.connection = down

    def _notice(self, notice: Notice) -> None:
        match notice:
            case PrivateRowsChanged(private_epoch):
                self._take(Entry(PrivateDataChanged(self._profile.private_epoch + private_epoch)))
            case Measured(values):
                self.measured.update(values)
            case Spoke():
                if not self.is_under_terms:  # live samples are not what was paid for
                    self._speaker.say(notice)
                self._on_spoke(notice)
            case Alarm(name, text):
                self._sound(name, text)

    def _receive(self, arrived: Arrived) -> None:
        """Take a message in; what is no message of ours is dropped with a word, and never comes again."""
        try:
            entry = read(
                arrived.topic, arrived.payload, self._profile, self._probes_of, self.now_ms, reserve=self._reserve
            )  # fmt: skip
            if (release := release_for(arrived.topic, arrived.payload, self._profile)) is not None:
                self._on_release(release)
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
        if isinstance(entry.event, ProbesNamed):
            self._look_for_sets()

    def _confirm(self, token: int) -> None:
        if self._speaker.settle(token) or (self._spool is not None and self._spool.confirm(token)):
            return
        self._outbox.confirm(token)
        if self._desk is not None:
            self._desk.published(token)
        if token == self._birth_token:
            self._birth_token = 0
        if token == self._report_token and self.state.report is not None:
            self._take(Entry(ReportSent(self.state.report.round)))
            self._on_round_end()

    def _bear_refusal(self, token: int, reason: str) -> None:
        """What the broker will never carry counts as refused, or as said: sending it again would be of no use."""
        if self._speaker.settle(token, reason):
            return
        if self._spool is not None and self._spool.confirm(token, refusal=reason):
            return
        send = self._outbox.owner(token)
        if send is not None and reason == PACKET_TOO_LARGE and self._outbox.cut_anew(send, self._upload_topic()):
            self._send_again([send])
            return
        if send is not None and reason != MESSAGE_EXPIRED:  # the deadline has come then, and says so itself
            self._take(Entry(ReceiptReceived(_refusal(send, f"broker: {reason}"))))
        if send is not None or token in (self._birth_token, self._report_token):
            log.error("the broker refused a message: %s", reason)
        self._confirm(token)

    # Public sets.

    def _probes_of(self, public_set: bytes) -> int:
        """Return how many samples a public set has; 0: the device does not have it, on its disk neither."""
        if not self._profile.probes_of(public_set) and (found := self._find_set(public_set)):
            log.info("public set %s is here, %d probes", public_set.hex()[:16], found)
            self._profile = replace(self._profile, further={**self._profile.further, public_set: found})
            self._birth_token = self._announce()
        return self._profile.probes_of(public_set)

    def _look_for_sets(self) -> None:
        """Look for the sets that the server speaks of; whoever delivers them puts them where `find_set` looks."""
        self._look_at_ms = self.now_ms + _LOOK_MS
        for public_set in self.state.named_sets:
            if not self._probes_of(public_set):
                log.warning("rounds are, or will be, about public set %s, which is not here", public_set.hex())

    # Taking in: the journal first, then the fold and what follows, then the acknowledgement.

    def _take(self, entry: Entry, arrived: Arrived | None = None) -> None:
        self._backlog.append((entry, arrived))
        self._settle_backlog()

    def _settle_backlog(self) -> None:
        if not self._is_disk_well and self.now_ms < self._disk_retry_ms:
            return
        try:
            while self._backlog:
                self._settle(*self._backlog[0])
                self._backlog.popleft()
            self._journal.compact(self.state)
        except StoreUnwritableError as error:
            self._disk_retry_ms = self.now_ms + _DISK_RETRY_MS
            self._sound(DISK_FULL if isinstance(error, StoreFullError) else DISK_READ_ONLY, str(error))
        else:
            self._sound(DISK_FULL, "")
            self._sound(DISK_READ_ONLY, "")

    @property
    def _is_disk_well(self) -> bool:
        return not self.alarms.keys() & {DISK_FULL, DISK_READ_ONLY}

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
            self._take(Entry(ClockTicked(self.now_ms, self._what_took_so_long())))
        self._send_again(self._outbox.overdue(self.now_ms))
        if self.now_ms >= self._look_at_ms and any(not self._profile.probes_of(one) for one in self.state.named_sets):
            self._look_for_sets()
        self._keep_conditions()

    def _keep_conditions(self) -> None:
        """Where a training waits for nothing but the machine, look whether it may begin."""
        if self._backlog or not (self.state.obstacle and participant.would_train(self.state)):
            return
        if self._looked_at_ms is not None and self.now_ms < self._looked_at_ms + _CONDITIONS_MS:
            return
        self._looked_at_ms = self.now_ms
        obstacle = self._obstacle(self.state.obstacle)
        if obstacle != self.state.obstacle:
            self._take(Entry(ConditionsChanged(obstacle)))

    def _what_took_so_long(self) -> str:
        if isinstance(self.connection, LinkDown):
            return f"not connected: {self.connection.reason}"
        if self.state.phase is Phase.SUBMITTING:
            return "no receipt"
        return self.alarms.get(WORKER_DOWN, "the worker was not done")

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
                self._begin(effect)
            case Send():
                self._post(effect)
            case SendReport():
                assert self.state.report is not None
                topic = self._topics.report(self._profile.device)
                self._report_token = self._link.publish(topic, codec.encode(self.state.report))

    def _begin(self, work: Work) -> None:
        if self._attempts.begin(work) > MAX_LIVES:
            reason = f"the device itself went down over it {MAX_LIVES} times"
            log.error("%s: %s", work.task.value, reason)
            self._inbox.put(Answer(WorkFailed(work, reason)))
        else:
            self._worker.submit(job_of(work, self.state, self._journal, self._profile))

    def _post(self, send: Send, only: Sequence[int] = ()) -> None:
        expires_at_ms = self.state.deadline_ms + _LATE_MS if send.kind is Kind.CONTRIBUTION else None
        payload, topic = self._journal.blob(send.payload), self._upload_topic()
        try:
            self._outbox.post(send, payload, topic, self.now_ms, only, expires_at_ms=expires_at_ms)
        except InvalidValueError as error:
            self._inbox.put(Answer(ReceiptReceived(_refusal(send, f"{PACKET_TOO_LARGE}: {error}"))))

    def _upload_topic(self) -> str:
        assert self.state.offer is not None
        return self._topics.upload(self._profile.device, self.state.offer.shards)

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
            self._feel(problem=self._problem)
            self._birth_token = self._announce()

    @property
    def _problem(self) -> str:
        return next((name for name in KEEPS_AWAY if name in self.alarms), "")

    def _feel(self, **changes: Any) -> None:
        self._vitals = replace(self._vitals, **changes)

    def _announce(self) -> int:
        return self._publish_state(presence.birth(self._profile, self._boot, self._version, problem=self._problem))

    def _publish_state(self, state: DeviceState) -> int:
        return self._link.publish(self._topics.state(self._profile.device), codec.encode(state), retain=True)


def _refusal(send: Send, reason: str) -> Receipt:
    return Receipt(send.round, send.kind, send.payload, Status.REFUSED, one_line(reason))


def _is_command(arrived: Arrived) -> bool:
    try:
        return parse(arrived.topic).leaf == "cmd"
    except DecodeError:
        return False


def _round_name(state: Participant) -> str:
    return "no round" if state.offer is None else f"round {state.offer.round.number}"
