"""A source in a thread of its own, run again when it fails: cameras are unplugged, brokers restart, plug-ins err."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_agent.inference.seams import Captured, Source
from edge_agent.process.notices import Alarm, Notice
from fd_protocol.errors import FedistillError

LONGEST_PAUSE_S = 60.0

log = logging.getLogger("edge-agent")


class SourceRunner:
    """Runs a source until it ends by itself or everything stops. Its failure is an alarm until it delivers again.

    Args:
        name: of the source.
        source: what is run.
        deliver: takes its samples.
        tell: takes notices.
        pause_s: after a failure; doubles with each further one, up to a minute.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        deliver: Callable[[Captured], None],
        tell: Callable[[Notice], None],
        *,
        pause_s: float = 1.0,
    ) -> None:
        self.name = name
        self._source, self._forward, self._tell, self._pause_s = source, deliver, tell, pause_s
        self._delivered, self._problem, self._has_ended = 0, "", False
        self._thread: threading.Thread | None = None

    def start(self, stop: threading.Event) -> None:
        self._thread = threading.Thread(target=self._run, args=(stop,), name=f"source {self.name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def facts(self) -> dict[str, object]:
        told: dict[str, object] = {"delivered": self._delivered}
        if self._has_ended:
            told["has_ended"] = True
        return {**told, **({"problem": self._problem} if self._problem else {})}

    def _run(self, stop: threading.Event) -> None:
        pause_s = self._pause_s
        while not stop.is_set():
            before = self._delivered
            try:
                self._source.run(self._deliver, stop)
            except Exception as error:
                is_strange = not isinstance(error, (FedistillError, OSError))  # somebody else's mistake: with its trace
                log.warning("source %s: %s", self.name, error, exc_info=is_strange)
                self._note(" ".join(f"{type(error).__name__}: {error}".split()))
            else:
                self._has_ended = not stop.is_set()
                return
            stop.wait(pause_s)
            pause_s = self._pause_s if self._delivered > before else min(2.0 * pause_s, LONGEST_PAUSE_S)

    def _deliver(self, captured: Captured) -> None:
        self._delivered += 1
        if self._problem:
            self._note("")
        self._forward(captured)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._tell(Alarm(f"source-{self.name}", problem))
