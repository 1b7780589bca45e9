"""HTTPS that lives long: files that change are read again, and every request knows who asks.

    FreshTls      certificate, key, authorities and revocation list as they are on the disk *now*, at each handshake
    PeerProtocol  puts the client's certificate, which TLS has verified, into the request

A revoked client is refused in the handshake, once the list on the disk says so, and again in each request: a connection
that stands is looked at as well. Sessions are not resumed with tickets, which would go past the list.

What is deliberately absent: what is served.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from starlette.requests import Request

from broker_server.sites.patience import PatientProtocol
from broker_server.sites.settings import TlsTerms
from fd_protocol.errors import InvalidValueError
from fd_runtime.stamps import Stamp, stamp_of

PEER = "peer"

log = logging.getLogger("broker-server")


def make_context(terms: TlsTerms) -> ssl.SSLContext:
    """Return the server's side of TLS, 1.2 or newer.

    Raises:
        InvalidValueError: a file is missing, or is not the PEM that it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(terms.certificate, terms.key)
        if terms.ca is not None:
            context.load_verify_locations(terms.ca)
            context.verify_mode = ssl.CERT_REQUIRED if terms.must_show else ssl.CERT_OPTIONAL
        if terms.crl is not None:
            context.load_verify_locations(terms.crl)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except OSError as error:
        raise InvalidValueError(f"{' or '.join(map(str, terms.files))}: {error}") from error
    return context


class FreshTls:
    """Contexts made of the files as they are now; what is broken at the moment leaves the last one in its place.

    Raises:
        InvalidValueError: a file is missing, or is not the PEM that it should be.
    """

    def __init__(self, terms: TlsTerms) -> None:
        self._terms = terms
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._context = make_context(terms)
        self.context = make_context(terms)
        """For a listener: it stays, and each handshake goes on with the newest."""
        self.context.sni_callback = self._hand_on

    def _hand_on(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.newest()

    def newest(self) -> ssl.SSLContext:
        """Return a context of the files as they are."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                try:
                    self._context = make_context(self._terms)
                    self._stamps = stamps
                    log.info("certificates of the HTTPS port were read again")
                except InvalidValueError as error:
                    log.warning("the HTTPS port goes on with what it had: %s", error)
            return self._context

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(map(stamp_of, self._terms.files))


@dataclass(slots=True)
class RevocationList:
    """The serials on a list, read again when the file has changed.

    A list that is broken at the moment counts as it was.
    """

    path: Path
    _stamp: Stamp | None = None
    _serials: frozenset[int] = field(default_factory=frozenset)

    def has(self, serial: int) -> bool:
        stamp = stamp_of(self.path)
        if stamp != self._stamp:
            try:
                crl = x509.load_pem_x509_crl(self.path.read_bytes())
                self._stamp, self._serials = stamp, frozenset(entry.serial_number for entry in crl)
            except (OSError, ValueError) as error:
                log.warning("the revocation list stays as it was: %s: %s", self.path, error)
        return serial in self._serials


class PeerProtocol(PatientProtocol):
    """The protocol of uvicorn, with the client's certificate in the request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own is so too
        super().connection_made(transport)
        secure = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, PEER: secure.getpeercert(binary_form=True) if secure else None}


def peer_of(
    request: Request, revocations: RevocationList | None, clock: Callable[[], datetime] | None = None
) -> x509.Certificate | None:
    """Return the certificate by which TLS knows the client; None: it showed none, or one that is no good any more."""
    der = getattr(request.state, PEER, None)
    if not der:
        return None
    certificate = x509.load_der_x509_certificate(der)
    now = (clock or _utc_now)()
    if certificate.not_valid_after_utc <= now:
        return None
    if revocations is not None and revocations.has(certificate.serial_number):
        return None
    return certificate


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)
