"""The server's loop: what arrives becomes an event, the journal keeps it, the federation says what follows.

    link ----+                      +--> blobs, rows, journal: one transaction (<= 100 messages or 5 ms)
             +--> inbox --> pump ---+--> acknowledgement to the broker, then receipts to the devices
    worker --+               ^      +--> federation: step, outstanding --> link, worker
    spool of orders ---------+

Order is the safety: everything is durable before the broker is told that a message was taken, and before the device
is. Where the disk is full the messages wait here, unacknowledged, `pump` raises, and the next `pump` tries again.
A message that cannot be read is set aside and counted, so that it does not come back for ever. Where a group cannot be
written its messages are taken in again one by one, so that none is set aside but the one that cannot be borne.

What is deliberately absent: the rules of a round (`federation`, `round`), what may count (`admission`), what operators
want (`order_desk`), arithmetic.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TypeAlias, cast

from broker_server.accepted import Accepted
from broker_server.attendance import Attendance
from broker_server.clerk import Clerk
from broker_server.core import editions, releases
from broker_server.core.catching_up import CatchingUp
from broker_server.core.delivery import Delivery
from broker_server.core.editions import Editions
from broker_server.core.events import (
    Aggregate,
    ClockTicked,
    EditionNamed,
    Effect,
    EpochBegun,
    Event,
    FindTime,
    MakeRelease,
    OpenRound,
    PublishBundle,
    PublishConsensus,
    PublishOffer,
    PublishPresence,
    PublishProbes,
    PublishRelease,
    ReleaseFailed,
    Scheduled,
    TimeFound,
    TrainStudent,
)
from broker_server.core.federation import Federation, outstanding, step, wake_at_ms, was_set_back
from broker_server.core.rate import Allowances
from broker_server.core.release_gate import ReleaseGate
from broker_server.core.round import Phase, Round
from broker_server.deliveries import Deliveries
from broker_server.errands import DEAF, Errand, Errands
from broker_server.group import Group
from broker_server.ingest import Ingest, Taken
from broker_server.journal import Journal
from broker_server.kits import Kit, Kits, MakeKit
from broker_server.news import news
from broker_server.order_desk import OrderDesk
from broker_server.orders import Placed, Spool
from broker_server.preparing import Preparation
from broker_server.publisher import Publisher
from broker_server.records.chronicle import Chronicle
from broker_server.records.scribe import Scribe
from broker_server.settings import ProbeSet, Settings
from broker_server.shelf import Shelf
from broker_server.student import Learner
from broker_server.teaching import Releasing, Teaching
from broker_server.timetable import next_time_ms
from broker_server.work import Finished, Task, work_on
from broker_server.worker import InlineWorker, Worker
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import DecodeError
from fd_protocol.messages import MAX_MARKS, ConsensusBlock, ProbeNotice, RoundOffer, RoundReport
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, Link, LinkDown, LinkEvent, LinkUp, Published, PublishRefused
from fd_runtime.reconciler import Reconciler
from fd_runtime.storage.store import MissingBlobError, Store, StoreError

Inbox: TypeAlias = "SimpleQueue[LinkEvent | Finished | None]"

GROUP_MESSAGES = 100
"""What a commit costs is shared by so many; half of what a broker may have under way to us (`service`)."""
GROUP_S = 0.005
ORDERS_S = 1.0
"""How often the spool is looked into at least."""
_PUBLISHES = (PublishPresence, PublishOffer, PublishConsensus, PublishRelease, PublishBundle, PublishProbes)
"""Effects that wait for a connection, and are due again at each."""

log = logging.getLogger("broker-server")


class Aggregator:
    """One federation's server.

    Args:
        settings: of the federation.
        store: its memory; nobody else writes to it.
        link: to the broker, with `manual_ack`; listens to `subscriptions`.
        clock: UTC milliseconds.
        student: learns every consensus, where there is one.
        probes: what the server must know of the public set that the settings name.
        canaries: probes of it that judge what devices claim.
        worker: where long work runs; it delivers to the link's queue, so that one wait hears everything.
        entropy: random bytes, for epochs and sampling seeds.
        on_report: is told every report of a device.
        version: of this program, for its presence.
        spool: where the operator's orders come from; None = there are none.
        shelf: where releases of the student are made; None = there are none.
        gate: judges the student; None = nobody does, there are no canaries to ask.
        auto_release: a student that is found better is released by itself.
        staging: which devices begin with a release of the student, in the words of an order; none = all.
        canaries_sha256: digest of all canaries of the settings.
        make_kit: makes what is needed for another edition of the public set; None = there are no others.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        link: Link,
        clock: Callable[[], int],
        student: Learner | None = None,
        *,
        probes: ProbeSet,
        canaries: LabelledProbes | None = None,
        worker: Worker | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        on_report: Callable[[str, RoundReport], None] = lambda _device, _report: None,
        version: str = "",
        spool: Spool | None = None,
        shelf: Shelf | None = None,
        gate: ReleaseGate | None = None,
        auto_release: bool = False,
        staging: Mapping[str, str] | None = None,
        canaries_sha256: bytes = b"",
        make_kit: MakeKit | None = None,
    ) -> None:
        settings.check_against(probes)
        self._settings, self._has_student = settings, student is not None
        self._kits = Kits(Kit(probes, canaries or LabelledProbes(), student, gate), canaries_sha256, make_kit)
        self._preparation = Preparation(settings, self._kits, store, clock, entropy)
        self._store, self._link, self._clock = store, link, clock
        self._worker, self._entropy = worker or InlineWorker(), entropy
        self._on_report, self._shelf = on_report, shelf
        self._auto_release, self._staging = auto_release, staging or {}
        self._publisher = Publisher(link, Topics(settings.federation), settings.aggregator, version, clock)
        self._inbox = cast("Inbox", link.events)
        self._backlog: list[Arrived | Finished] = []
        self._is_up, self._catching_up = False, CatchingUp()
        self._ingest = Ingest(settings, probes, store, self._new_epoch, Allowances(settings.admission))
        self._journal = Journal(store, settings.federation)
        self._scribe = Scribe(store, settings.federation, settings.method)
        self._errands = Errands(store, settings.federation)
        clerk = Clerk(store, settings, self._scribe, lambda: self._kits)
        self._desk = OrderDesk(spool, clerk, self._errands, self._scribe)
        deliveries, chronicle = Deliveries(store, settings.federation), Chronicle(store, settings.federation)
        self._attendance = Attendance(deliveries, chronicle, lambda tags: self._first_devices(tags)[:MAX_MARKS])
        self.counters = self._journal.counters()
        self._reconciler: Reconciler[Federation, Event, Effect] = Reconciler(
            self._journal.replay(), step, outstanding, self._write, self._perform
        )
        self._begin()

    @property
    def state(self) -> Federation:
        return self._reconciler.state

    @property
    def is_complete(self) -> bool:
        """Whether the last scheduled round has ended and the student has learnt it."""
        return self.state.is_complete and not any(isinstance(e, TrainStudent) for e in outstanding(self.state))

    def pump(self, timeout_s: float) -> bool:
        """Take in what has come, waiting at most `timeout_s` for the first; return whether anything happened.

        Raises:
            StoreFullError: nothing was lost; call again once there is room.
        """
        before = self.state
        count = self._collect(self._wait_s(timeout_s))
        self._commit()
        if self._desk.is_rewrite_due(at_ms := self._clock()):
            self._desk.rewrite(at_ms)
        self._reconciler.reconcile()
        return count > 0 or self.state is not before

    def wake(self) -> None:
        """End the wait of a `pump`; may be called from a signal handler or another thread."""
        self._inbox.put(None)

    def leave(self) -> int:
        """Publish that the server goes on purpose; return the token of that message."""
        return self._publisher.presence(self.state.epoch, online=False)

    # Coming in.

    def _begin(self) -> None:
        """Journal what is new since the last life; the chronicle follows, whatever another program did meanwhile.

        Raises:
            FedistillError: the public set in use is not here, or does not go with the settings.
        """
        known = self._named()
        self._settings.check_against(self._kits.of(known.current).probes)
        if known.current is not None and known.count > 1:
            log.info("rounds are about edition %d of the public set, whatever the settings name", known.current.number)
        self._reconciler.submit(tuple(self._first_events()))
        with self._store.transaction():
            self._scribe.write((), self.state, self._clock())
        self._desk.rewrite(self._clock())

    def _first_events(self) -> Iterator[Event]:
        if self.state.epoch == 0:
            yield EpochBegun(self._new_epoch(), self._clock())
        edition = self._kits.first_edition
        if edition is not None and self._named() is not self.state.editions:
            yield EditionNamed(edition)
        schedule = replace(
            self._settings.rounds.schedule(has_student=self._has_student),
            student_speaks=self._settings.method.downlink == "student",
            auto_release=self._auto_release,
            staging=self._staging,
        )
        if schedule != self.state.schedule:
            yield Scheduled(schedule, self._clock())

    def _named(self) -> Editions:
        """Return the editions once the settings have had their say."""
        edition = self._kits.first_edition
        return self.state.editions if edition is None else editions.named(self.state.editions, edition)

    def _wait_s(self, timeout_s: float) -> float:
        wake_ms = self._wake_ms()
        timeout_s = min(timeout_s, ORDERS_S) if self._desk.is_open else timeout_s
        return timeout_s if wake_ms is None else max(0.0, min(timeout_s, (wake_ms - self._clock()) / 1000))

    def _wake_ms(self) -> int | None:
        """Return when time alone will change the state; None = never, or not before there is a connection."""
        wake_ms, done_ms = wake_at_ms(self.state), self._catching_up.done_ms
        if wake_ms is None or self.state.round is None or not self.state.round.is_open:
            return wake_ms
        return None if done_ms is None else max(wake_ms, done_ms)

    def _may_tick(self, state: Federation, at_ms: int) -> bool:
        """Whether time may go on: a deadline that passed while we were away waits for what was sent before it."""
        if state.round is None or not state.round.is_open or at_ms < state.round.deadline_ms:
            return True
        return self._catching_up.has_heard(at_ms)

    def _collect(self, timeout_s: float) -> int:
        """Wait for one thing; once it is there, wait a little for others that may share its transaction."""
        end_s = time.monotonic() + timeout_s
        count = 0
        while len(self._backlog) < GROUP_MESSAGES:
            try:
                self._receive(self._inbox.get(timeout=max(0.0, end_s - time.monotonic())))
            except Empty:
                break
            count += 1
            end_s = min(end_s, time.monotonic() + GROUP_S)
        return count

    def _receive(self, item: LinkEvent | Finished | None) -> None:
        match item:
            case Arrived() | Finished():
                self._backlog.append(item)
                if isinstance(item, Arrived):
                    self._catching_up.hear(self._clock())
            case LinkUp():
                log.info("broker reached")
                self._is_up = True
                self._catching_up.come_up(self._clock())
                self._attendance.expect_call()
                self._forget_publishes()
                self._send(self._errands.unheard(self._clock() / 1000))
            case LinkDown(reason):
                self._is_up = False
                self._catching_up.go_down()
                log.warning("broker lost: %s", reason)
            case PublishRefused(_, reason):
                log.error("the broker refuses a message: %s", reason)
            case Published() | None:
                pass

    def _commit(self) -> None:
        """Make the backlog durable, then tell broker and devices, then act on the new state."""
        at_ms, orders = self._clock(), self._desk.waiting(self.state)
        self._catching_up.look(at_ms)
        wake_ms = self._wake_ms()
        is_due = (wake_ms is not None and wake_ms <= at_ms) or was_set_back(self.state, at_ms)
        is_due = is_due or releases.is_due(self.state.releases, at_ms)
        is_due = is_due or (self._catching_up.has_heard(at_ms) and self._attendance.is_due(self.state.releases, at_ms))
        if not self._backlog and not is_due and not orders:
            return
        try:
            self._commit_group(tuple(self._backlog), at_ms, orders)
        except Exception as error:
            self._attendance.forget()
            if _is_of_the_disk(error) or not any(isinstance(item, Arrived) for item in self._backlog):
                raise
            log.warning("a group of %d is taken in one by one: %r", len(self._backlog), error)
            for item in tuple(self._backlog):
                self._commit_alone(item, at_ms)

    def _commit_alone(self, item: Arrived | Finished, at_ms: int) -> None:
        """Whatever a message does to us, it must not come back for ever, nor take others with it."""
        try:
            self._commit_group((item,), at_ms)
        except Exception as error:
            self._attendance.forget()
            if _is_of_the_disk(error) or isinstance(item, Finished):
                raise
            self._commit_group((item,), at_ms, broken=error)

    def _commit_group(
        self,
        items: Sequence[Arrived | Finished],
        at_ms: int,
        orders: Sequence[Placed] = (),
        *,
        broken: Exception | None = None,
    ) -> None:
        """Make the first `items` of the backlog durable as one group; `broken` is what came of trying before."""
        group = Group(self.state, at_ms, Accepted(self._store, self._settings.federation))
        lost: list[Delivery] = []
        with self._store.transaction():
            for item in items:
                if isinstance(item, Finished):
                    self._take_result(item, group)
                elif broken is None:
                    self._take(item, group)
                else:
                    self._set_aside(item, broken, group)
            for placed in orders:
                self._desk.obey(placed.order, group)
            group.settle()
            if self._may_tick(group.state, at_ms):
                group.fold(ClockTicked(at_ms))
            if self._catching_up.has_heard(at_ms):
                lost = self._attendance.watch(group.state.releases, at_ms)
                group.fold(*self._attendance.news(group.state.releases))
            self._keep(group)
        del self._backlog[: len(items)]
        self.counters += group.counted
        for item in items:
            if isinstance(item, Arrived):
                self._link.ack(item)
        for taken in group.answers:
            self._answer(taken)
        self._send(group.errands)
        self._desk.remove(orders)
        for one in lost:
            log.warning("%s is lost on its way to bundle %s; its last word: %s", one.device, one.bundle, one.words)
        for line in news(self.state, group.state):
            log.info("%s", line)
        self._reconciler.adopt(group.state)
        if group.orders:
            self._desk.rewrite(self._clock())
            self._forget_staged()

    def _take_result(self, finished: Finished, group: Group) -> None:
        for blob in finished.blobs:
            self._store.put_blob(blob)
        group.settle()
        before = group.state
        group.fold(*finished.events)
        group.standings += finished.standings if group.state is not before else ()

    def _take(self, arrived: Arrived, group: Group) -> None:
        try:
            taken = self._ingest.take(arrived, group.state, group.accepted, group.at_ms)
        except Exception as error:
            if _is_of_the_disk(error):
                raise
            self._set_aside(arrived, error, group)
            return
        if taken.broken:
            assert taken.receipt is not None
            self._journal.quarantine.put(arrived.topic, taken.broken, taken.receipt.reason, group.at_ms)
        group.take(taken)
        self._take_command(taken, group)

    def _take_command(self, taken: Taken, group: Group) -> None:
        """Write down how far a command is; a device that comes back is asked again for what it has not answered."""
        if taken.command is not None and self._errands.hear(taken.device, taken.command, group.at_ms):
            log.info("%s of %s: %s", taken.command.command, taken.device, taken.command.state.value)
        if self._attendance.take(taken, group.state.releases, group.at_ms):
            group.fold(*self._attendance.news(group.state.releases))
        if taken.presence is None or not taken.presence.online:
            return
        for errand in self._errands.meet(taken.device, taken.presence.capabilities, group.at_ms):
            log.warning("%s to %s: it %s", errand.command, taken.device, DEAF)
        if not taken.retained:
            group.errands += self._errands.unheard(group.at_ms / 1000, taken.device)

    def _set_aside(self, arrived: Arrived, error: Exception, group: Group) -> None:
        reason = error.reason if isinstance(error, DecodeError) else "error"
        log.warning("%s set aside: %s", arrived.topic, error, exc_info=error if reason == "error" else None)
        self._journal.quarantine.put(arrived.topic, arrived.payload, reason, group.at_ms)
        group.counted[f"set_aside.{reason}"] += 1

    def _keep(self, group: Group) -> None:
        group.accepted.write()
        self._journal.write(group.events, group.at_ms)
        self._scribe.write(group.answers, group.state, group.at_ms)
        self._scribe.stand(group.standings, group.state)
        if group.orders:
            self._desk.depart(group)
            self._scribe.write((), group.state, group.at_ms)
            self._attendance.forget()
        if group.orders or _reach(group.state) != _reach(self.state):
            self._attendance.ask(group.state, group.at_ms)
        has_ended = self.state.has_open_round and not group.state.has_open_round
        if has_ended:
            kept, number = self._settings.records, group.state.number
            self._errands.prune(self._scribe.prune(kept, number, group.at_ms))
            named = self._scribe.named_blobs(kept, number)
            probes = self._kits.of(group.state.editions.current).probes
            self._journal.tidy(group.state, named, kept_rounds=self._settings.kept_rounds(probes))
            self._kits.keep(group.state.editions)
            group.counted += _ending(group.state.round)
            self._journal.keep_counters(self.counters + group.counted)
        if has_ended or group.orders or self._journal.is_long:
            self._journal.fold(group.state)

    def _write(self, events: Sequence[Event]) -> None:
        with self._store.transaction():
            self._journal.write(events, self._clock())

    def _answer(self, taken: Taken) -> None:
        if taken.receipt is not None:
            self._publisher.receipt(taken.device, taken.receipt)
        if taken.report is not None:
            self._on_report(taken.device, taken.report)

    # Going out.

    def _send(self, errands: Iterable[Errand]) -> None:
        """Say commands; what cannot be said now is said at the next connection."""
        for errand in errands if self._is_up else ():
            self._publisher.command(errand.device, errand.message)

    def _forget_publishes(self) -> None:
        """The broker may have lost what it retained: publish it at every connection."""
        for effect in outstanding(self.state):
            if isinstance(effect, _PUBLISHES):
                self._reconciler.forget(effect)

    def _forget_staged(self) -> None:
        """A tag is on other devices than before: those that are among the first may be others."""
        for effect in outstanding(self.state):
            if isinstance(effect, (PublishBundle, PublishRelease)) and effect.tags:
                self._reconciler.forget(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case effect if isinstance(effect, _PUBLISHES) and not self._is_up:
                pass  # due again at the next connection
            case PublishPresence(epoch):
                self._publisher.presence(epoch, online=True)
            case PublishOffer():
                assert self.state.round is not None
                self._publisher.offer(self.state.round)
            case PublishConsensus(_, blocks):
                self._publisher.consensus([self._store.blob(digest) for digest in blocks])
            case FindTime(timetable, after_ms):
                found = TimeFound(timetable, after_ms, next_time_ms(timetable, after_ms))
                self._inbox.put(Finished((found,)))
            case OpenRound(number, _):
                self._inbox.put(Finished((self._preparation.opening(self.state, number),)))
            case Aggregate():
                self._start(self._preparation.aggregation(self.state, effect))
            case PublishProbes(current, coming):
                self._publisher.probes(ProbeNotice(current, coming))
            case TrainStudent():
                self._start(self._teaching(effect))
            case MakeRelease() if self._shelf is not None:
                beside = tuple(one.package for one in self.state.releases.made)
                self._start(Releasing(effect, self._shelf, self._clock, beside))
            case MakeRelease(weights=weights):
                self._inbox.put(Finished((ReleaseFailed(weights, "no_shelf"),)))
            case PublishBundle():
                first = self._shelf.first if self._shelf is not None else None
                self._publisher.bundle(effect, first, self._first_devices(effect.tags))
            case PublishRelease() if self._shelf is not None:
                devices = self._first_devices(effect.tags)
                self._publisher.release(self._shelf.family, self._shelf.first, effect, devices)
            case PublishRelease():
                pass  # what was released before lies on another server's shelf

    def _first_devices(self, tags: Sequence[str]) -> list[str]:
        return sorted({device for tag in tags for device in self._scribe.devices_of(None, tag)})

    def _teaching(self, effect: TrainStudent) -> Teaching:
        """The lesson is about the probes of the consensus, whatever the next round is about."""
        first = codec.decode(self._store.blob(effect.blocks[0]), ConsensusBlock)
        kit = self._kits.about(first.slice.public_set, self.state.editions)
        assert kit.student is not None  # the schedule says so
        return Teaching(effect, kit.student, self._offer_of(effect), kit.gate)

    def _offer_of(self, effect: TrainStudent) -> RoundOffer | None:
        """Return what the student is to speak on; no round opens before it has."""
        if not effect.speaks:
            return None
        assert self.state.round is not None
        return self.state.round.offer

    def _start(self, task: Task) -> None:
        self._worker.start(lambda: work_on(task, self._store, self._inbox.put))

    def _new_epoch(self) -> int:
        """63 random bits, not zero."""
        return (int.from_bytes(self._entropy(8), "big") >> 1) | 1


def _reach(state: Federation) -> list[tuple[object, ...]]:
    """Return what says who is to change to another bundle by now."""
    return [(one.bundle, one.share, one.tags, one.halted) for one in state.releases.rollouts]


def _is_of_the_disk(error: Exception) -> bool:
    """Whether it is the database that failed, and no message's fault."""
    return isinstance(error, StoreError) and not isinstance(error, MissingBlobError)


def _ending(ended: Round | None) -> Counter[str]:
    """Return how a round that has ended counts: by its phase, and where it was aborted by the reason's first word."""
    assert ended is not None
    names = [f"round.{ended.phase.value}"]
    if ended.phase is Phase.ABORTED:
        names.append(f"aborted.{ended.reason.partition(':')[0]}")
    return Counter(names)
