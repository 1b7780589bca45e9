"""Where the models of virtual devices live: in this process (`SharedModels`), or in others (`Lanes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from edge_agent.jobs import Answer, Job
from edge_agent.private_data import PrivateRows
from edge_agent.worker import Worker
from fd_protocol.prototypes import PrototypeSpace
from fd_runtime.artifacts import Bundle
from fd_runtime.model import F32, Features

Deliver: TypeAlias = Callable[[Answer], None]


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
    """

    device: str
    bundle: Bundle
    private: PrivateRows
    checkpoint: Path | None = None
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
