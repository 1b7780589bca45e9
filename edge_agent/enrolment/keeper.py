"""Sends the errand when it is due, as long as the device runs; a thread of the supervisor.

    look --> nothing due: look again soon (clocks jump, owners bring tokens)
         --> enrol, renew: the errand's process --done--> the link connects, or goes on; its next connection counts
                                                --not now--> wait, longer each time
                                                --refused--> wait for another token, an hour at most
                                                --no clock--> wait for the clock

A renewal interrupts nothing: who is connected stays connected, and the new file counts from the next connection on.
A device without a certificate does everything that needs no broker.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.enrolment.files import IdentityFiles
from edge_agent.enrolment.renewal import Due, due, is_late
from fd_protocol.errors import DecodeError
from fd_runtime.stamps import stamp_of

_LOOK_S = 10.0
_CLOCK_S = 5.0
_REFUSED_S = 3600.0
_RETRY_S: Mapping[Due, tuple[float, float]] = {Due.ENROL: (2.0, 300.0), Due.RENEW: (60.0, 3600.0)}
"""First and longest wait; the wait doubles, and a fleet does not march."""
_PATIENCE_S = 180.0

log = logging.getLogger("edge-agent")


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class IdentityKeeper:
    """Of one device, for one life.

    Args:
        files: where its identity is.
        device: its id.
        errand: command that makes a visit; what is due is appended.
        environment: of the errand; None = this process's.
        clock: UTC.
        look_s: seconds between two looks, of which none costs a process.

    Attributes:
        alarm: a certificate that is about to end and was not renewed, in words; empty: all is well.
    """

    def __init__(
        self,
        files: IdentityFiles,
        device: str,
        errand: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = utc_now,
        look_s: float = _LOOK_S,
    ) -> None:
        self._files, self._device, self._errand = files, device, tuple(errand)
        self._on_enrolled: Callable[[], None] = lambda: None
        self._environment, self._clock, self._look_s = environment, clock, look_s
        self._is_out = files.life() is None
        self._reason = "it has no certificate yet" if self._is_out else ""
        self._failures, self.alarm = 0, ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="identity", daemon=True)

    def start(self, on_enrolled: Callable[[], None]) -> None:
        """Begin; `on_enrolled` is told, from the thread, when a token has brought a certificate."""
        self._on_enrolled = on_enrolled
        self._thread.start()

    def close(self) -> None:
        """End soon; a visit that is under way goes on by itself, and ends whole."""
        self._closing.set()
        self._thread.join(1.0)

    def obstacle(self) -> str:
        """Return why there can be no connection yet; empty: there is a certificate."""
        return "" if self._files.life() else f"not enrolled: {self._reason}"

    # The thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                wait_s = self._turn()
            except Exception:  # a mistake of ours must not end renewals for good, nor spin
                log.exception("the certificate waits")
                wait_s = _REFUSED_S
            self._wait(wait_s)

    def _turn(self) -> float:
        """Do what is due and return how long to wait."""
        life = self._files.life()
        if self._is_out and life is not None:  # a visit, or somebody else, has brought it
            self._is_out, self._reason = False, ""
            self._on_enrolled()
        what = due(life, self._device, self._clock(), has_new_token=bool(self._files.new_token()))
        if what is Due.NOTHING:
            return self._look_s
        ending, reason = self._visit(what)
        if ending == "done":
            log.info("certificate of %s: %s", self._device, reason)
            self._failures, self._reason, self.alarm = 0, "", ""
            # By another token perhaps, after it was put out: the link may have given up for minutes.
            self._is_out = self._is_out or what is Due.ENROL
            return 0.0 if self._is_out else self._look_s
        if reason != self._reason:
            log.warning("certificate of %s: %s", self._device, reason)
        self._reason = reason
        self._look_for_alarm()
        return self._pause_s(ending, what)

    def _look_for_alarm(self) -> None:
        life = self._files.life()
        is_alarming = life is not None and is_late(life, self._clock())
        self.alarm = f"ends {life.end:%Y-%m-%d %H:%M} UTC: {self._reason}" if life and is_alarming else ""

    def _visit(self, what: Due) -> tuple[str, str]:
        """Send the errand; return how it ended, and why."""
        try:
            if early := self._files.early_clock(self._clock()):
                return "clock", early
            done = subprocess.run(
                [*self._errand, what.value],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=self._environment,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, ValueError, DecodeError, subprocess.TimeoutExpired) as error:
            return "postponed", str(error)
        try:
            said = json.loads(done.stdout.splitlines()[-1])
            return str(said["ending"]), str(said["reason"])
        except (ValueError, LookupError, TypeError):
            return "postponed", f"the errand ended with status {done.returncode}"

    def _pause_s(self, ending: str, what: Due) -> float:
        if ending == "clock":
            return _CLOCK_S
        if ending == "refused":
            return _REFUSED_S
        low_s, high_s = _RETRY_S[what]
        longest_s = min(high_s, low_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - only to spread a fleet out

    def _wait(self, timeout_s: float) -> None:
        """Wait; another token, or a certificate that somebody else has brought, ends it."""
        before, left_s = self._token_stamp(), timeout_s
        while left_s > 0 and not self._closing.wait(min(left_s, self._look_s)):
            left_s -= self._look_s
            if self._token_stamp() != before or (self._is_out and self._files.life() is not None):
                return

    def _token_stamp(self) -> object:
        return None if self._files.token is None else stamp_of(self._files.token)


def errand_command(path: Path) -> list[str]:
    """Return the command that makes a visit for the device that the settings at `path` describe."""
    return [sys.executable, "-m", "edge_agent.enrolment.errand", str(path)]
