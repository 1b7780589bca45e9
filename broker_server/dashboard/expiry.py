"""Until when certificates and the revocation list are good; read anew each time, so that a renewal is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from broker_server.config import Config


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a file ceases to be good.

    Attributes:
        file: one word for metrics: broker_ca, aggregator, dashboard or crl.
        what: the same for people.
        until_ms: UTC milliseconds.
        runbook: the alert that says what to do.
        warn_days: how long before its end somebody should know; a list is signed for 30 days, a certificate for 365.
    """

    file: str
    what: str
    until_ms: int
    runbook: str
    warn_days: int = 30


def expiries(config: Config) -> Iterator[Expiry]:
    """Yield one for each file that the settings name and that can be read; of a chain the first to end."""
    tls, own = config.broker.tls, config.dashboard.tls
    certificates = [
        ("broker_ca", "certificate authority of the broker", tls.ca if tls else None),
        ("aggregator", "certificate of this server", tls.certificate if tls else None),
        ("dashboard", "certificate of the dashboard", own.certificate if own else None),
    ]
    for file, what, path in certificates:
        until_ms = _certificates_end(path) if path else None
        if until_ms is not None:
            yield Expiry(file, what, until_ms, "CertificateExpires")
    until_ms = _list_ends(config.dashboard.crl) if config.dashboard.crl else None
    if until_ms is not None:
        yield Expiry("crl", "revocation list of the broker", until_ms, "RevocationListExpires", warn_days=7)


def _certificates_end(path: Path) -> int | None:
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return None
    return min((round(1000 * one.not_valid_after_utc.timestamp()) for one in chain), default=None)


def _list_ends(path: Path) -> int | None:
    """A file may hold the lists of several authorities, one after the other."""
    try:
        parts = path.read_bytes().split(b"-----BEGIN X509 CRL-----")[1:]
        lists = [x509.load_pem_x509_crl(b"-----BEGIN X509 CRL-----" + part) for part in parts]
    except (OSError, ValueError):
        return None
    ends = [one.next_update_utc for one in lists if one.next_update_utc is not None]
    return min((round(1000 * end.timestamp()) for end in ends), default=None)
