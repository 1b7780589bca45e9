"""The two kinds of programs of a federation, each on the in-memory bus, with a store that outlives its crashes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from broker_server.aggregator import Aggregator
from broker_server.kits import MakeKit
from broker_server.orders import Spool
from broker_server.settings import ProbeSet, Settings
from broker_server.student import Learner
from edge_agent import presence
from edge_agent.agent import Agent, Inbox
from edge_agent.jobs import Answer, Job
from edge_agent.private.data import PrivateRows
from edge_agent.reservations import Reservations
from edge_agent.round.eligibility import Profile
from edge_agent.worker import InlineWorker, Worker
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.topics import Topics
from fd_runtime.links.link import LinkSettings, Will
from fd_runtime.storage.store import Store
from fleet_sim.bus.bus import InMemoryBroker
from fleet_sim.bus.link import BusLink, Line
from fleet_sim.federation.cores import Core, CorePlan, Cores, Deliver

REST_S = 5.0
"""How long an agent that waits for something is left alone, at most: what is unanswered it looks at that often."""


@dataclass(slots=True)
class Clock:
    """Turned by hand. UTC for the server, monotonic for devices: both only ever ask how much time has passed."""

    now_ms: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def now_s(self) -> float:
        return self.now_ms / 1000


@dataclass(frozen=True, slots=True)
class TimedWorker:
    """A worker whose jobs take time: `dues` says, in the order of the jobs, when each is done."""

    worker: Worker
    due_at: Callable[[Job], float]
    dues: deque[float]

    def submit(self, job: Job) -> None:
        self.dues.append(self.due_at(job))
        self.worker.submit(job)

    def close(self) -> None:
        self.worker.close()


@dataclass(slots=True)
class Device:
    """A real `Agent`, and the core that does its jobs.

    Attributes:
        cores: where the model's side lives.
        plan: of this device's.
        tamper: stands between core and agent; None for an honest device.
        line: what its messages cross; None: they cross at once.
        due_at: when a job that it is given now is done, in milliseconds; None: at once.
    """

    number: int
    profile: Profile
    broker: InMemoryBroker
    clock: Clock
    cores: Cores
    plan: CorePlan
    tamper: Callable[[Callable[[Job], Answer]], Callable[[Job], Answer]] | None = None
    line: Line | None = None
    due_at: Callable[[Job], float] | None = None
    store: Store = field(default_factory=lambda: Store.open(None))
    is_on: bool = field(init=False, default=False)
    core: Core = field(init=False)
    agent: Agent = field(init=False)
    _done: deque[tuple[float, Answer]] = field(init=False)
    _link: BusLink = field(init=False)
    _rests_until_ms: float = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def id(self) -> str:
        return self.profile.device

    def start(self) -> None:
        """Begin a life, the first or one after a crash."""
        topics, boot = Topics(self.profile.federation), presence.begin_life(self.store)
        settings = LinkSettings(
            self.id,
            subscriptions=topics.device_filters(self.id),
            will=Will(topics.state(self.id), codec.encode(presence.will(boot))),
            manual_ack=True,
            session_expiry_s=presence.SESSION_S,
        )
        self._link = self.broker.link(settings, self.line)
        self.core = self.cores.open(self.plan)
        self.agent = Agent(
            self.profile, self.store, self._link, self._worker(), self.clock, reserve=self._reservations()
        )
        self._rests_until_ms, self.is_on = self.clock.now_ms, True

    def _reservations(self) -> Reservations:
        purse = self.plan.purse
        if purse is None:
            return Reservations(self.profile)
        return Reservations(self.profile, purse.own, purse.ledger, clock=lambda: purse.now_s)

    def _worker(self) -> Worker:
        """Return what does the agent's jobs; where they take time, an answer waits until it is due."""
        put, self._done = cast("Inbox", self._link.events).put, deque()
        if self.due_at is None:
            return self._plain_worker(put)
        dues: deque[float] = deque()
        done = self._done
        worker = self._plain_worker(lambda answer: done.append((dues.popleft(), answer)))
        return TimedWorker(worker, self.due_at, dues)

    def _plain_worker(self, deliver: Deliver) -> Worker:
        if self.tamper is None:
            return self.cores.worker(self.core, deliver)
        return InlineWorker(self.tamper(self.core.handle), deliver)

    def pump(self) -> bool:
        """Let the agent act, and return whether anything happened.

        An agent that has been pumped has nothing left to do until something waits for it, or until its own next time.
        """
        if not self.is_on:
            return False
        now_ms = self.clock.now_ms
        while self._done and self._done[0][0] <= now_ms:
            cast("Inbox", self._link.events).put(self._done.popleft()[1])
        if now_ms < self._rests_until_ms and self._link.events.empty():
            return False
        has_acted = self.agent.pump(0.0)
        self._rests_until_ms = now_ms + max(1, math.ceil(1000 * self.agent.wait_s(REST_S)))
        return has_acted

    def crash(self) -> None:
        """Die without a word; the store stays as the last transaction left it."""
        self.broker.kill(self.id)
        self.is_on = False

    def renew(self, private: PrivateRows) -> None:
        """Start again on other private rows, as a program does whose file of them was replaced; if it is off, later."""
        was_on = self.is_on
        self.crash()
        self.plan = replace(self.plan, private=private)
        self.profile = replace(self.profile, private_epoch=self.profile.private_epoch + 1)
        if was_on:
            self.start()


@dataclass(slots=True)
class Server:
    """A real `Aggregator` that works in this process."""

    settings: Settings
    broker: InMemoryBroker
    clock: Clock
    probes: ProbeSet
    entropy: Callable[[int], bytes]
    student: Learner | None = None
    canaries: LabelledProbes | None = None
    path: Path | None = None
    spool: Spool | None = None
    make_kit: MakeKit | None = None
    store: Store = field(init=False)
    aggregator: Aggregator = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store.open(self.path)
        self.start()

    def start(self) -> None:
        """Begin a life on the store as it is."""
        settings = LinkSettings(
            self.settings.aggregator,
            subscriptions=self.settings.subscriptions,
            will=self.settings.will,
            manual_ack=True,
        )
        self.aggregator = Aggregator(
            self.settings,
            self.store,
            self.broker.link(settings),
            self.clock,
            self.student,
            probes=self.probes,
            canaries=self.canaries,
            entropy=self.entropy,
            spool=self.spool,
            make_kit=self.make_kit,
        )

    def crash(self) -> None:
        """Die without a word; the store stays as the last transaction left it."""
        self.broker.kill(self.settings.aggregator)
