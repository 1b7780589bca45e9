"""A program beside the server, started again when it ends: whatever becomes of it, the aggregator goes on.

Its standard input is a pipe whose other end only this process holds, so a child can tell that its parent has ended,
even where nobody could say so any more.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Sequence

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
_STEADY_S = 60.0
"""A child that lived this long has recovered: the next pause is a short one again."""
_FAREWELL_S = 5.0

log = logging.getLogger("broker-server")


class Child:
    """Keeps `command` running from `start` to `stop`; `name` is what the log calls it."""

    def __init__(self, name: str, command: Sequence[str], *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._name, self._command, self._first_pause_s = name, command, first_pause_s
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self) -> None:
        """End it, first by asking."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(_FAREWELL_S)

    def _keep(self) -> None:
        pause_s = self._first_pause_s
        while not self._stopping.is_set():
            began_s = time.monotonic()
            told = self._live()
            if self._stopping.is_set():
                return
            pause_s = self._first_pause_s if time.monotonic() - began_s >= _STEADY_S else pause_s
            log.warning("the %s ended (%s); it starts again in %.0f s", self._name, told, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def _live(self) -> str:
        """Run one life of it; return how it ended."""
        with self._lock:
            if self._stopping.is_set():
                return "not started"
            try:
                # A session of its own: Ctrl-C is for the server, which stops its children itself.
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
            except OSError as error:
                return str(error)
        return f"exit code {self._process.wait()}"
