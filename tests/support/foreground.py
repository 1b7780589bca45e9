"""Programs as a person runs them: in the foreground of a terminal, ended by Ctrl-C, leaving nothing behind."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

import psutil

from fleet_sim.real.processes import ours
from tests.support.programs import kill
from tests.support.terminals import hear_ctrl_c

_END_S = 60.0


class Foreground:
    """One of our commands in the foreground of a terminal of its own, and all that it starts."""

    def __init__(self, command, *arguments):
        self._process = subprocess.Popen(
            [ours(command), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - it takes no lock
        )
        self._started: list[psutil.Process] = []

    def processes(self):
        """Return what it has started by now: broker, server, devices and their workers, baselines."""
        self._started = psutil.Process(self._process.pid).children(recursive=True)
        return self._started

    def is_running(self):
        """Whether anything that it has started still runs."""
        return any(map(is_running, self._started))

    def result(self, deadline_s):
        """Return its exit code and what it printed."""
        printed, _ = self._process.communicate(timeout=deadline_s)
        return self._process.returncode, printed

    def interrupt(self, how):
        """Send a signal as a terminal does, to the whole foreground group; return the exit code."""
        os.killpg(self._process.pid, how)
        self._process.communicate(timeout=_END_S)
        return self._process.returncode

    def end(self):
        for process in self._started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        kill(self._process)
        self._process.communicate(timeout=_END_S)


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
