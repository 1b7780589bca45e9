"""Command `restart-worker`: end the process that holds the model, and see another one ready.

A job under way has failed and is tried again, as after any death of the worker.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.commands.body import Body
from edge_agent.commands.doing import CommandFailedError, Doing, Done, Progress
from edge_agent.commands.machine import ERROR
from edge_agent.jobs import Answer
from fd_protocol.messages import Command

_PATIENCE_S = 120.0


def restart_worker_handler(body: Body, monotonic_s: Callable[[], float]) -> Callable[..., Doing]:
    """Return the handler."""

    def handle(_command: Command, *, is_resumed: bool) -> Doing:
        if is_resumed:  # the worker has ended with the life that was to end it
            return _Restart(body, monotonic_s, starts=0)
        starts = body.vitals.worker_starts
        body.restart_worker()
        return _Restart(body, monotonic_s, starts)

    return handle


class _Restart:
    """Waits for a worker that is ready once more than `starts` times."""

    def __init__(self, body: Body, monotonic_s: Callable[[], float], starts: int) -> None:
        self._body, self._monotonic_s, self._starts = body, monotonic_s, starts
        self._begin_s = monotonic_s()

    def poll(self) -> Progress | None:
        vitals, waited_s = self._body.vitals, self._monotonic_s() - self._begin_s
        if vitals.is_worker_ready and vitals.worker_starts > self._starts:
            return Done({"ready_after_s": f"{waited_s:.1f}"})
        if waited_s > _PATIENCE_S:
            raise CommandFailedError(f"{ERROR}: the worker was not ready after {_PATIENCE_S:.0f} s")
        return None

    def answered(self, _answer: Answer) -> bool:
        return False
