"""Where the models of virtual devices live: in this process (`SharedModels`), or in others (`Lanes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from edge_agent.jobs import Answer, Job
from edge_agent.privacy.learner import Purse
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.private.data import PrivateRows
from edge_agent.worker import Worker
from fd_protocol.identity import sha256
from fd_protocol.prototypes import PrototypeSpace
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32, Features

Deliver: TypeAlias = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class PursePlan:
    """What a purse is made of.

    Attributes:
        folder: of the ledger.
        secret: what the keys of its noise are drawn from.
        own: the owner's terms.
        now_s: UTC seconds; a federation is played within one privacy period.
    """

    folder: Path
    secret: bytes
    own: PrivacySettings
    now_s: float = 1_800_000_000.0

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder, lambda count: sha256(self.secret)[:count])

    def purse(self, bundle: Bundle) -> Purse:
        """Return the purse of a device that runs `bundle`."""
        return Purse(self.ledger, self.own, bundle.open_private_step, clock=lambda: self.now_s)


@dataclass(frozen=True, slots=True)
class CorePlan:
    """What a device's core is made of.

    Attributes:
        device: its id.
        bundle: of its family.
        private: its rows, perhaps none.
        checkpoint: where what it learns is kept; None = nowhere.
        has_public_set: whether it is asked about probes.
        space: of the prototypes that it tells, where it is not; None = it is asked about labels.
        purse: what it pays private trainings from; None = there are none.
    """

    device: str
    bundle: Bundle
    private: PrivateRows
    checkpoint: Path | None = None
    purse: PursePlan | None = None
    has_public_set: bool = True
    space: PrototypeSpace | None = None


class Core(Protocol):
    """An `edge_agent.worker_core.WorkerCore`, wherever it lives."""

    def handle(self, job: Job) -> Answer: ...

    def logits(self, features: Features) -> F32: ...


class Cores(Protocol):
    """Makes cores, and the workers that agents give their jobs to."""

    def open(self, plan: CorePlan) -> Core:
        """Return a core, from its checkpoint if it has one."""
        ...

    def worker(self, core: Core, deliver: Deliver) -> Worker:
        """Return a worker that has the jobs done by a core made here."""
        ...

    def settle(self) -> None:
        """Deliver the answers to all jobs submitted so far; nothing else may move before."""
        ...
