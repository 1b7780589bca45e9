"""A broker that this machine starts for itself, on loopback."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fd_protocol.errors import FedistillError

LOOPBACK = "127.0.0.1"
_START_S = 15.0
_STOP_S = 10.0
_POLL_S = 0.02


class BrokerError(FedistillError):
    """A broker is not installed or does not start."""


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """A broker started by `command`, which listens on `port` of loopback and writes to the file `log_path`."""

    def __init__(self, command: Sequence[str], port: int, log_path: Path) -> None:
        self.port = port
        self.log_path = log_path
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> BrokerProcess:
        """Start it and return once it accepts connections.

        Raises:
            BrokerError: the port is taken, or it does not come up; carries the end of its log.
        """
        if _accepts(self.port):
            raise BrokerError(f"port {self.port} is taken")
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C is for the program that started it, and that one stops it last.
            process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        self._process = process
        if not _comes_up(self.port, process):
            self.kill()
            raise BrokerError(f"{self._command[0]} did not start: {self.log_path.read_text()[-1000:]}")
        return self

    def stop(self) -> None:
        """End it as a service manager does: it may save its state."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does: what it did not save is lost."""
        self._end(signal.SIGKILL)

    def reload(self) -> None:
        """Let it read its access rules again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> BrokerProcess:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()


def _comes_up(port: int, process: subprocess.Popen[bytes]) -> bool:
    end_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end_s:
        if _accepts(port):
            return True
        time.sleep(_POLL_S)
    return False


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
