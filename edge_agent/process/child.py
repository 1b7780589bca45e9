"""A process that is spoken to in frames and never waited for: it may hang, or read nothing, and its parent goes on."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from edge_agent.process.pipe import Frames, frame
from fd_runtime.links.waking import Waker

_READ_BYTES = 1 << 16
_END_S = 1.0
"""For a process that has closed its pipe, or was asked to say where it hangs."""


class Child:
    """A running process. Its standard input takes frames, its standard output gives them.

    Attributes:
        is_gone: it has closed its output; what it said before has been returned.

    Raises:
        OSError: the system would not start it.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None, inherited: Sequence[int] = ()
    ) -> None:
        # A session of its own: Ctrl-C in a terminal is for the supervisor, which ends the worker itself.
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,
        )
        self._input, self._output = _pipe(self._process.stdin), _pipe(self._process.stdout)
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)
        self._unsent = bytearray()
        self._frames = Frames()
        self.is_gone = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes) -> None:
        """Have a frame written in the turns to come."""
        self._unsent += frame(data)

    def turn(self, timeout_s: float, waker: Waker) -> list[bytes]:
        """Wait for the process, at most `timeout_s` or until `waker` wakes; return the frames that have come.

        Raises:
            DecodeError: what it says are no frames.
        """
        poller = select.poll()
        poller.register(self._output, select.POLLIN)
        poller.register(waker, select.POLLIN)
        if self._unsent:
            poller.register(self._input, select.POLLOUT)
        ready = dict(poller.poll(max(0, math.ceil(timeout_s * 1000))))
        if waker.fileno() in ready:
            waker.rest()
        if self._input.fileno() in ready:
            self._write()
        return self._read() if self._output.fileno() in ready else []

    def end(self) -> int:
        """Return the exit status (negative: the signal) of a process that ends, or is killed for not ending."""
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return self.kill()
        finally:
            self._close()

    def end_hung(self) -> None:
        """Let a process that hangs write down where, then kill it."""
        self._process.send_signal(signal.SIGABRT)
        self.end()

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        self._process.send_signal(number)

    def kill(self) -> int:
        self._process.kill()
        return self._process.wait()

    def _write(self) -> None:
        try:
            del self._unsent[: os.write(self._input.fileno(), self._unsent[:_READ_BYTES])]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # its output says when it is over
            self._unsent.clear()

    def _read(self) -> list[bytes]:
        data = os.read(self._output.fileno(), _READ_BYTES)
        self.is_gone = not data
        return list(self._frames.feed(data))

    def _close(self) -> None:
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                pipe.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Popen was asked for it
    return pipe
