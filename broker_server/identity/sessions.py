"""The end of a session whose certificate was revoked.

A broker looks at a certificate when a connection begins, and never again: who is connected stays. But it takes the
client id from the certificate, and keeps one connection of a name. So we come under the victim's name, with a
certificate that we make for it and that is good for five minutes:

    revoke, with a probe's serial on the list too --> knock as the probe until it hears that it is revoked: the broker
                                                      has the list
                                                  --> connect as the victim, anew: its session, and what waited in it,
                                                      end, its will goes out --> it cannot come back

The probe of a revocation that the broker has not been seen to know is kept, a day at most: who has the broker read the
list and gives the command again asks by the same probe, which is on the list that the broker has read by then. A new
one would be on a newer list only.

What is deliberately absent: any trust in the order of signals. That the broker has the list is seen, not assumed: of
all ways in which a connection can end, only the alert of TLS that a certificate is revoked says it. A broker that was
never told, behind a firewall that resets connections, refuses nobody.
"""

from __future__ import annotations

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

from cryptography import x509

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from fd_protocol.identity import check_name
from fd_runtime.files import write_atomically
from fd_runtime.links.knocking import knock
from fd_runtime.links.link import LinkSettings, LinkUp, TlsFiles
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.starting import BrokerSettings

LIFE = timedelta(minutes=5)
PROBE_LIFE = timedelta(days=1)
_LEAST = timedelta(minutes=10)
"""A probe that ends sooner is used no more: once it has ended, every broker refuses it."""
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_REVOKED_ALERT = "SSLV3_ALERT_CERTIFICATE_REVOKED"
"""OpenSSL's name of alert 44 (RFC 8446, section 6.2), of every version of TLS; in TLS 1.3 a read after the handshake
raises it."""
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
    def mint(cls, authority: Authority, device: str, now: datetime, valid: timedelta = LIFE) -> Pass:
        key, chain, serial = authority.mint(Identity(device, Role.DEVICE), now=now, valid=valid)
        return cls(serial, key, chain)

    @classmethod
    def kept(cls, authority: Authority, device: str, now: datetime) -> Pass | None:
        """Return the probe that `keep` kept, if it is good for a while."""
        try:
            content = _kept_at(authority, device).read_bytes()
        except FileNotFoundError:
            return None
        key, begin, rest = content.partition(_CERTIFICATE)
        chain = begin + rest
        certificate = x509.load_pem_x509_certificate(chain)
        is_good = certificate.not_valid_after_utc - now > _LEAST
        return cls(certificate.serial_number, key, chain) if is_good else None

    def keep(self, authority: Authority, device: str) -> None:
        """Keep a probe until `forget`. It is on our list, and its key lies beside the one that could make more."""
        path = _kept_at(authority, device)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, self.key + self.chain, mode=0o600)

    @staticmethod
    def forget(authority: Authority, device: str) -> None:
        """Let go of a kept probe, if there is one."""
        _kept_at(authority, device).unlink(missing_ok=True)

    @contextmanager
    def files(self, authority: Authority) -> Iterator[TlsFiles]:
        """Yield it as files, which are gone at the end."""
        with tempfile.TemporaryDirectory() as name:
            files = TlsFiles(authority.root_path, Path(name) / "pass.pem", Path(name) / "pass.key")
            write_atomically(files.key, self.key, mode=0o600, is_durable=False)
            write_atomically(files.certificate, self.chain, is_durable=False)
            yield files


def _kept_at(authority: Authority, device: str) -> Path:
    return authority.folder / "probes" / f"{check_name(device, 'device')}.pem"


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
        found = _await_refusal(lambda: knock(broker.host, broker.port, files), patience_s)
    if found is not End.ENDED:
        return found
    with victim.files(authority) as files:
        return _take_over(broker, device, files)


def _await_refusal(try_: Callable[[], object], patience_s: float) -> End:
    """Return `ENDED` once a try is refused as revoked, else what the last one within `patience_s` came to."""
    end_s = time.monotonic() + patience_s
    while True:
        try:
            try_()
            found = End.LIST_NOT_READ
        except ssl.SSLCertVerificationError:  # it is the broker that does not convince us
            return End.UNREACHABLE
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason == _REVOKED_ALERT:
                return End.ENDED
            found = End.UNREACHABLE
        if time.monotonic() > end_s:
            return found
        time.sleep(_POLL_S)


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
