"""Tells the world how the device is, once in each turn of its loop: systemd and the file of its standing.

READY=1 is said when the broker has taken the device in and it hears; where there is no broker, after half a minute: a
device offline does its work, and a boot must not wait for a network. Until then each turn asks for more time to start.
WATCHDOG=1 is said by turns alone, so a loop that stands still, in a disk that does not answer, say, is noticed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge_agent.process import standing as standings
from edge_agent.process.sd_notify import Notifier
from edge_agent.process.standing import Standing

READY_S = 30.0
_STARTING_US = 60_000_000
"""More time to start that each turn asks for, in microseconds."""
_FEED_S = 1.0
_NUMBERS_S = 60.0
"""How old the numbers in the file may get; anything else is written as it changes."""
_RETRY_S = 5.0
"""Pause after a disk that took nothing."""

log = logging.getLogger("edge-agent")


class Herald:
    """One device's.

    Args:
        notifier: to systemd.
        path: of the standing's file.
        clock: monotonic seconds.
    """

    def __init__(self, notifier: Notifier, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier, self._path, self._clock = notifier, path, clock
        self._start_s = clock()
        self._is_ready = False
        self._line = ""
        self._fed_s = self._written_s = self._retry_s = float("-inf")
        self._written: Standing | None = None

    @property
    def pause_s(self) -> float:
        """Longest that a turn may take: systemd's patience, with some to spare."""
        return self._notifier.pause_s

    def turn(self, standing: Standing) -> None:
        """Say what is due."""
        now_s = self._clock()
        if now_s - self._fed_s >= _FEED_S:
            self._feed(standing, now_s)
        if standing.line != self._line:
            self._line = standing.line
            self._notifier.tell(STATUS=self._line)
        self._write(standing, now_s)

    def stop(self) -> None:
        """Say that the device ends; its standing is of no interest any more."""
        self._notifier.tell(STOPPING=1)
        self._notifier.close()
        self._remove()

    def _feed(self, standing: Standing, now_s: float) -> None:
        self._fed_s = now_s
        if self._is_ready:
            self._notifier.tell(WATCHDOG=1)
        elif standing.vitals.is_connected or now_s - self._start_s >= READY_S:
            self._is_ready = True
            self._notifier.tell(READY=1, STATUS=standing.line)
        else:
            self._notifier.tell(EXTEND_TIMEOUT_USEC=_STARTING_US)

    def _write(self, standing: Standing, now_s: float) -> None:
        is_news = self._written is None or replace(standing, measured=self._written.measured) != self._written
        is_old = standing != self._written and now_s - self._written_s >= _NUMBERS_S
        if now_s < self._retry_s or not (is_news or is_old):
            return
        try:
            standings.save(self._path, standing)
        except OSError as error:
            log.debug("nobody can read how the device is: %s", error)  # a full disk is said elsewhere
            self._written, self._retry_s = None, now_s + _RETRY_S
            self._remove()  # better nothing than what was so before
        else:
            self._written, self._written_s = standing, now_s

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()
