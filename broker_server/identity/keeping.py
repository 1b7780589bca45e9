"""Keeps the revocation list young and the broker up to date with it; a thread beside the HTTPS port.

An expired list locks every device out, so it is signed anew when a week of its thirty days has gone: three weeks before
anything happens, and two before the alarm (docs/dashboard.md). Whoever changes the list, this thread or a command, the
broker is told within seconds, and once more at the start: it may have changed while nobody looked.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from broker_server.identity.ca import CRL_DAYS, Authority
from broker_server.identity.certificates import next_update
from fd_protocol.errors import FedistillError
from fd_runtime.stamps import Stamp, stamp_of

REFRESH_AFTER = timedelta(days=7)
_LOOK_S = 2.0
_RETRY_S = 60.0

log = logging.getLogger("broker-server")


def is_due(ends: datetime, now: datetime) -> bool:
    """Whether a revocation list that ends then is to be signed anew."""
    return ends - now <= timedelta(days=CRL_DAYS) - REFRESH_AFTER


def signal_broker(pid_file: Path | None) -> bool:
    """Tell the broker to read its revocation list again; return whether it was told."""
    if pid_file is None:
        return False
    try:
        os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGHUP)
    except (OSError, ValueError) as error:
        log.warning("the broker was not told of the revocation list (%s): %s", pid_file, error)
        return False
    return True


class Keeping:
    """Keeps the list of one authority, from `start` to `stop`.

    Args:
        authority: whose list.
        pid_file: of the broker; None = somebody else tells it.
        clock: UTC.
        look_s: seconds between two looks.
    """

    def __init__(
        self, authority: Authority, pid_file: Path | None, clock: Callable[[], datetime], *, look_s: float = _LOOK_S
    ) -> None:
        self._authority, self._pid_file, self._clock, self._look_s = authority, pid_file, clock, look_s
        self._told: Stamp | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="revocation list", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(2 * self._look_s)

    def look(self) -> None:
        """Do what is due.

        Raises:
            CaError, OSError: the list cannot be signed or written.
        """
        path, now = self._authority.crl_path, self._clock()
        if is_due(next_update(path.read_bytes()), now):
            with self._authority.locked():
                until = self._authority.renew_crl(now=now)
            log.info("the revocation list is good until %s", f"{until:%Y-%m-%d}")
        stamp = stamp_of(path)
        if stamp != self._told:
            self._told = stamp
            signal_broker(self._pid_file)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
                wait_s = self._look_s
            except (FedistillError, OSError) as error:
                log.error("the revocation list is not kept: %s", error)  # noqa: TRY400 - the trace says no more
                wait_s = _RETRY_S
            self._stopping.wait(wait_s)
