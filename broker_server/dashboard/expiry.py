"""Until when certificates and the revocation list are good; read anew each time, so that a renewal is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from broker_server.config import Config
from broker_server.identity.certificates import next_update, outlook
from fd_protocol.errors import InvalidValueError

_WARN_DAYS = 30
_ISSUING_WARN_DAYS = 60
"""Certificates of devices get shorter once it has less to live than they would."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a file ceases to be good.

    Attributes:
        file: one word for metrics: broker_ca, aggregator, dashboard, packages, issuing or crl.
        what: the same for people.
        until_ms: UTC milliseconds.
        runbook: the alert that says what to do.
        warn_days: how long before its end somebody should know; a list is signed for 30 days, a certificate for 365.
    """

    file: str
    what: str
    until_ms: int
    runbook: str
    warn_days: int = _WARN_DAYS


def expiries(config: Config) -> Iterator[Expiry]:
    """Yield one for each file that the settings name and that can be read; of a chain the first to end."""
    tls, own, packages = config.broker.tls, config.dashboard.tls, config.packages.tls
    authority = config.enrolment.known_authority if config.enrolment.authority else None
    certificates = [
        ("broker_ca", "certificate authority of the broker", tls.ca if tls else None),
        ("aggregator", "certificate of this server", tls.certificate if tls else None),
        ("dashboard", "certificate of the dashboard", own.certificate if own else None),
        ("packages", "certificate of the HTTPS port for devices", packages.certificate if packages else None),
        ("issuing", "certificate that signs those of devices", authority.issuing_path if authority else None),
    ]
    for file, what, path in certificates:
        until_ms = _certificates_end(path) if path else None
        if until_ms is not None:
            warn_days = _ISSUING_WARN_DAYS if file == "issuing" else _WARN_DAYS
            yield Expiry(file, what, until_ms, "CertificateExpires", warn_days=warn_days)
    until_ms = _list_ends(config.crl) if config.crl else None
    if until_ms is not None:
        yield Expiry("crl", "revocation list of the broker", until_ms, "RevocationListExpires", warn_days=7)


def _certificates_end(path: Path) -> int | None:
    with suppress(OSError, InvalidValueError):
        return _to_ms(outlook(path.read_bytes())[1])
    return None


def _list_ends(path: Path) -> int | None:
    with suppress(OSError, InvalidValueError):
        return _to_ms(next_update(path.read_bytes()))
    return None


def _to_ms(end: datetime) -> int:
    return round(1000 * end.timestamp())
