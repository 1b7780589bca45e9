"""Waiting for a fleet of real processes to play its rounds, and noticing when it never will."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fd_protocol.errors import FedistillError
from fleet_sim.real.fleet import Fleet
from fleet_sim.real.observer import Observer

_LOOK_S = 0.1
_STALLED_S = 180.0


class StalledError(FedistillError):
    """No round has ended for minutes; the logs say why."""

    def __init__(self, logs: Path) -> None:
        super().__init__(f"no round ended for {_STALLED_S:.0f} s; see {logs}")


def watch(observer: Observer, fleet: Fleet, on_round: Callable[[int], None]) -> None:
    """Look until everyone has learned from the last consensus; `on_round` is told of each that the student has learnt.

    Raises:
        ProgramEndedError: one of the programs ended.
        StalledError: nothing moves.
    """
    last_s, last = time.monotonic(), 0
    while not observer.is_complete:
        fleet.check()
        observer.look()
        if (number := max(observer.student, default=0)) > last:
            last_s, last = time.monotonic(), number
            on_round(number)
        if time.monotonic() - last_s > _STALLED_S:
            raise StalledError(fleet.folder / "logs")
        time.sleep(_LOOK_S)
