"""Programs that tests start, and wait for no longer than patience lasts: a killed one ends every wait for it.

patient     what a block asks of a program that somebody else has started
running     the same, and the program is the block's own
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from tests.support.patience import PATIENCE_S


@contextmanager
def patient(process: subprocess.Popen[Any], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Give a program so long for all that a block asks of it; then it is killed, which ends the wait: a failure."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        kill(process)

    timer = threading.Timer(patience_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if is_late.is_set():
            pytest.fail(f"waited {patience_s:.0f} s for {process.args}")


@contextmanager
def running(command: list[Any], patience_s: float = PATIENCE_S, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program for a block, with so long for its whole life; it is killed if the block fails, else waited for."""
    process = subprocess.Popen(command, **options)
    with patient(process, patience_s), process:
        try:
            yield process
        except BaseException:
            kill(process)
            raise


def kill(process: subprocess.Popen[Any]) -> None:
    """End a program, and all that it has started: whoever holds its pipes lets go of them."""
    if process.poll() is not None:
        return
    with suppress(psutil.NoSuchProcess):
        whole = psutil.Process(process.pid)
        whole.suspend()  # or it starts one more that is not among them
        for one in [whole, *whole.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def stop(process: subprocess.Popen[Any], patience_s: float = PATIENCE_S) -> None:
    """Ask a program to end, and wait for it; one that will not is killed, and is a failure."""
    with patient(process, patience_s):
        process.terminate()
        process.wait()
