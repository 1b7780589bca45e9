"""Where packages of bundles are served for devices. It refuses to exist where that would be unsafe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker_server.dashboard.settings import ServingFiles
from fd_protocol.errors import InvalidValueError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class PackageSettings:
    """The `[packages]` of a federation's settings.

    Attributes:
        enabled: whether `broker-server run` starts it.
        host, port: where it listens.
        ca: certificates that devices' own are checked against; required off loopback.
        crl: the broker's revocation list; without it a revoked device still gets packages.
        tls: what it answers with; required off loopback.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8443
    ca: Path | None = None
    crl: Path | None = None
    tls: ServingFiles | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise InvalidValueError("a port lies in 1..65535")
        if self.host not in _LOOPBACK and (self.tls is None or self.ca is None):
            raise InvalidValueError(f"on {self.host} packages are for devices alone: set [packages.tls], and ca")
        if (self.ca is not None or self.crl is not None) and self.tls is None:
            raise InvalidValueError("devices show certificates over TLS: set [packages.tls]")
        if self.crl is not None and self.ca is None:
            raise InvalidValueError("a crl says which certificates of ca are no good: set ca")
