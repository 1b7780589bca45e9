"""Where packages of bundles are served for devices. It refuses to exist where that would be unsafe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker_server.dashboard.settings import ServingFiles
from broker_server.identity.ca import Authority
from fd_protocol.errors import InvalidValueError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class TlsTerms:
    """What the port shows and whom it lets in.

    Attributes:
        certificate, key: its own, in PEM; the chain, leaf first.
        ca: of clients; None = they show nothing.
        crl: certificates of `ca` that are no good.
        must_show: a client without a certificate is not even answered.
    """

    certificate: Path
    key: Path
    ca: Path | None = None
    crl: Path | None = None
    must_show: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.ca, self.crl) if path is not None)


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

    def terms(self, enrolment: Authority | None = None) -> TlsTerms | None:
        """Return the port's side of TLS; None = plain HTTP, on loopback.

        Args:
            enrolment: the authority where devices enrol here: its root and list count where no others are named, and
                who has no certificate yet is let in to ask for one.
        """
        if self.tls is None:
            return None
        ca = self.ca or (enrolment.root_path if enrolment else None)
        crl = self.crl or (enrolment.crl_path if enrolment else None)
        return TlsTerms(self.tls.certificate, self.tls.key, ca, crl, must_show=enrolment is None)
