"""What systemd is told, by datagrams to the socket that it names in the environment (sd_notify(3)); else nothing.

A unit of `Type=notify` with `WatchdogSec=` needs no library for that: READY=1, STATUS=, WATCHDOG=1, STOPPING=1.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

SYSTEMD_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SHARE = 3
"""A watchdog is fed this often in its time, so that one late turn of the loop is no death."""


class Notifier:
    """Speaks to systemd, or to nobody.

    Args:
        address: of the socket: a path, or a name that begins with `@` and has none; empty = there is nobody.
        watchdog_s: how soon systemd wants to hear again; 0 = it does not watch.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        # "vsock:" is what a virtual machine's own init is told, never a service.
        self._address = address if address[:1] in ("/", "@") else ""
        self.watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)  # a full queue must not hold up what it is there to watch

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Return the notifier that systemd set up for this very process."""
        wanted = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "") if wanted else ""
        return cls(environment.get("NOTIFY_SOCKET", ""), int(microseconds) / 1e6 if microseconds.isdigit() else 0.0)

    @property
    def pause_s(self) -> float:
        """How long, at most, the loop may take from one `tell` to the next; infinite where nobody watches."""
        return self.watchdog_s / _SHARE if self.watchdog_s else float("inf")

    def tell(self, **values: str | int) -> None:
        """Send assignments, as `READY=1`, in one datagram. What cannot be sent is not worth a device."""
        if self._socket is None:
            return
        text = "\n".join(f"{name}={_one_line(str(value))}" for name, value in values.items())
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), address)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _one_line(text: str) -> str:
    return " ".join(text.split())
