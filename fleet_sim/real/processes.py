"""The programs that a demo starts: each with its own log, ended by its own pid, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fd_protocol.errors import FedistillError

_STOP_S = 8.0


def ours(command: str) -> Path:
    """Return one of our commands, from the environment that we run in."""
    return Path(sys.executable).with_name(command)


class ProgramEndedError(FedistillError):
    """A program ended that should be running; carries its name and the end of its log."""

    def __init__(self, name: str, exit_code: int, log_tail: str) -> None:
        self.name, self.exit_code = name, exit_code
        super().__init__(f"{name} ended with exit code {exit_code}:\n{log_tail}")


class Program:
    """A process of its own session, writing to a log file."""

    def __init__(self, name: str, command: Sequence[str | Path], log_path: Path) -> None:
        self.name, self._command, self._log_path = name, tuple(command), log_path
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        with log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then ends its programs in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self, *, may_end: bool = False) -> None:
        """Raise ProgramEndedError if it does not run any more; with `may_end`, only if it failed."""
        exit_code = self._process.poll()
        if exit_code is not None and not (may_end and exit_code == 0):
            raise ProgramEndedError(self.name, exit_code, self._log_path.read_text()[-2000:])

    def ask_to_stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, until_s: float) -> None:
        """Wait for its end, at most until `time.monotonic()` is `until_s`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until_s - time.monotonic()))

    def kill(self) -> None:
        """End it the hard way, if it still runs."""
        self._process.kill()
        self._process.wait()

    def again(self) -> Program:
        """Return a new process of the same command, which writes on in the same log."""
        return Program(self.name, self._command, self._log_path)


def stop_all(programs: Sequence[Program]) -> None:
    """Ask all at once, then wait for each; a second Ctrl-C ends the wait, and what still runs."""
    try:
        for program in programs:
            program.ask_to_stop()
        until_s = time.monotonic() + _STOP_S
        for program in programs:
            program.wait(until_s)
    finally:
        for program in programs:
            program.kill()
