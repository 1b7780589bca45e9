"""`edge-agent health`: is the device running and well? For a person, and as a gate for updates and boot checks."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from edge_agent.care.look import look
from edge_agent.care.vitals import Steadiness
from edge_agent.cli.output import tell
from edge_agent.cli.place import config_path
from fd_protocol.errors import FedistillError

EX_UNWELL = 1
_POLL_S = 0.5


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    complaints = _gate(path, arguments.wait, arguments.steady) if arguments.gate else complaints_of(path)[0]
    told = {"well": not complaints, "complaints": list(complaints)}
    tell(arguments, told, "well" if not complaints else "\n".join(complaints))
    return EX_UNWELL if complaints else 0


def complaints_of(path: Path) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Return what is wrong with the device, nothing where it is well; and which life and worker were looked at.

    Raises:
        ConfigError: the settings are wrong.
        StartError: the memory cannot be read.
    """
    seen = look(path)
    vitals = seen.standing.vitals if seen.standing is not None else None
    return seen.complaints, (vitals.boot, vitals.worker_starts) if vitals is not None else (0, 0)


def _gate(path: Path, patience_s: float, steady_s: float) -> tuple[str, ...]:
    """Wait until the device is well, and stays so with the same worker in the same life; return why it did not."""
    end_s = time.monotonic() + patience_s
    steadiness = Steadiness(steady_s)
    while True:
        try:
            complaints, who = complaints_of(path)
        except FedistillError as error:  # settings and memory may just be written
            complaints, who = (str(error),), (0, 0)
        now_s = time.monotonic()
        if steadiness.look(who, now_s, is_well=not complaints):
            return ()
        if now_s >= end_s:
            return complaints or ("it did not stay well for long enough",)
        time.sleep(_POLL_S)
