"""A thread that waits on descriptors, woken by another thread."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """`wake` from any thread, a signal handler too; the thread that waits polls `fileno` and calls `rest`."""

    def __init__(self) -> None:
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: awake already; closed: nobody is left to wake
            self._waker.send(b"\0")

    def rest(self) -> None:
        """Forget all wakings so far."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def fileno(self) -> int:
        return self._woken.fileno()

    def close(self) -> None:
        self._waker.close()
        self._woken.close()
