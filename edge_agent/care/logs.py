"""The logs of both processes of a device, and how a person gets at their last lines: SIGUSR2 writes them to a file.

    SIGUSR1 to the worker      the log level has changed (`log_level`)
    SIGUSR2 to the supervisor  write `log_tail`, and let the worker write `log_tail.worker`

The files are of this moment and of no further use: whoever asked removes them.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from fd_runtime.files import write_atomically
from fd_runtime.logs import Tail

TAIL, WORKER_TAIL = "log_tail", "log_tail.worker"


def write_at_signal(tail: Tail, path: Path, then: Callable[[], None] = lambda: None) -> None:
    """Let SIGUSR2 write the last lines to `path`. Call it on the main thread."""

    def write(_number: int, _frame: FrameType | None) -> None:
        then()
        with contextlib.suppress(OSError):  # no room: whoever asked sees that nothing comes
            write_atomically(path, "".join(f"{line}\n" for line in tail.lines).encode(), mode=0o600)

    signal.signal(signal.SIGUSR2, write)
