"""Long work, away from the loop: a task, and what comes of it. Results are events and bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker_server.core.events import Event
from broker_server.core.standing import Standing
from fd_runtime.storage.store import Store

log = logging.getLogger("broker-server")


@dataclass(frozen=True, slots=True)
class Finished:
    """Events, and the bytes that they name; both become durable together.

    `standings` of a consensus are for the chronicle: no event carries them, or the state would grow with the devices.
    """

    events: tuple[Event, ...]
    blobs: tuple[bytes, ...] = ()
    standings: tuple[Standing, ...] = ()


class Task(Protocol):
    """One piece of long work, with all that it needs but the store."""

    def run(self, store: Store) -> Finished:
        """Do it; whatever it raises is its failure."""
        ...

    def failed(self, reason: str) -> Finished:
        """Return what its failure means."""
        ...


def work_on(task: Task, store: Store, deliver: Callable[[Finished], None]) -> None:
    """Do `task` with a view of `store` for this thread, and deliver what came of it.

    A failure is a result too, or a payload that breaks the arithmetic would stop the server at every start.
    """
    try:
        with store.reader() as reader:
            finished = task.run(reader)
    except Exception as error:
        log.exception("%s failed", type(task).__name__)
        finished = task.failed(type(error).__name__)
    deliver(finished)
