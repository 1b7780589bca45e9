"""The end of a session whose certificate was revoked.

A broker looks at a certificate when a connection begins, and never again: who is connected stays. But it takes the
client id from the certificate, and keeps one connection of a name. So we come under the victim's name, with a
certificate that we make for it and that is good for five minutes:

    revoke, with a probe's serial on the list too --> knock as the probe until it is refused: the broker has the list
                                                  --> connect as the victim, anew: its session, and what waited in it,
                                                      end, its will goes out --> it cannot come back

What is deliberately absent: any trust in the order of signals. That the broker has the list is seen, not assumed.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from queue import Empty

from broker_server.ca import Authority
from broker_server.certificates import Identity, Role
from fd_runtime.files import write_atomically
from fd_runtime.knocking import knock
from fd_runtime.link import LinkSettings, LinkUp, TlsFiles
from fd_runtime.mqtt_link import MqttLink
from fd_runtime.starting import BrokerSettings

LIFE = timedelta(minutes=5)
_POLL_S = 0.2
_CONNECT_S = 10.0


class End(str, Enum):
    """How far it came."""

    ENDED = "ended"
    """The broker has the list, and nobody of that name is connected."""
    LIST_NOT_READ = "list_not_read"
    """The broker still takes what is revoked: it was not told, or reads another file."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Pass:
    """A short-lived certificate of a device's name, and its key."""

    serial: int
    key: bytes
    chain: bytes

    @classmethod
    def mint(cls, authority: Authority, device: str, now: datetime) -> Pass:
        key, chain, serial = authority.mint(Identity(device, Role.DEVICE), now=now, valid=LIFE)
        return cls(serial, key, chain)

    @contextmanager
    def files(self, authority: Authority) -> Iterator[TlsFiles]:
        """Yield it as files, which are gone at the end."""
        with tempfile.TemporaryDirectory() as name:
            files = TlsFiles(authority.root_path, Path(name) / "pass.pem", Path(name) / "pass.key")
            write_atomically(files.key, self.key, mode=0o600, is_durable=False)
            write_atomically(files.certificate, self.chain, is_durable=False)
            yield files


def end_session(
    authority: Authority, broker: BrokerSettings, device: str, probe: Pass, victim: Pass, *, patience_s: float
) -> End:
    """End the session of a device that was just revoked.

    Args:
        authority: that made the passes.
        broker: where it is.
        device: whose session.
        probe: whose serial is on the revocation list.
        victim: whose serial is not.
        patience_s: how long the broker may take to read the list.
    """
    with probe.files(authority) as files:
        found = _await_refusal(lambda: knock(broker.host, broker.port, files), broker, patience_s)
    if found is not End.ENDED:
        return found
    with victim.files(authority) as files:
        return _take_over(broker, device, files)


def _await_refusal(try_: Callable[[], object], broker: BrokerSettings, patience_s: float) -> End:
    end_s = time.monotonic() + patience_s
    while True:
        try:
            try_()
        except ssl.SSLCertVerificationError:  # it is the broker that does not convince us
            return End.UNREACHABLE
        except OSError:
            return End.ENDED if _is_there(broker) else End.UNREACHABLE
        if time.monotonic() > end_s:
            return End.LIST_NOT_READ
        time.sleep(_POLL_S)


def _is_there(broker: BrokerSettings) -> bool:
    """A broker that refuses a certificate still listens."""
    try:
        with socket.create_connection((broker.host, broker.port), _CONNECT_S):
            return True
    except OSError:
        return False


def _take_over(broker: BrokerSettings, device: str, files: TlsFiles) -> End:
    settings = LinkSettings(
        device,
        host=broker.host,
        port=broker.port,
        tls=files,
        proxy=broker.way,
        session_expiry_s=0,
        clean_start=True,
        reconnect_max_s=1.0,
    )
    link = MqttLink(settings)
    end_s = time.monotonic() + _CONNECT_S
    try:
        while (left_s := end_s - time.monotonic()) > 0:
            if isinstance(link.events.get(timeout=left_s), LinkUp):
                return End.ENDED
    except Empty:
        pass
    finally:
        link.close()
    return End.UNREACHABLE
