"""A broker beside the federation's: the home's or the plant's own, where sensors speak and Home Assistant listens.

Each use connects as a client of its own with its own settings: the federation's access rules say nothing of it, and
what is said here never reaches the federation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require
from fd_runtime.links.link import LinkSettings, TlsFiles, Trust
from fd_runtime.starting import LOOPBACK


@dataclass(frozen=True, slots=True)
class LocalTls:
    """[....broker.tls]: certificates in PEM.

    Attributes:
        ca: whom the device trusts; whom its system trusts, if left out.
        certificate, key: the device's own, where the broker asks for one; both or neither.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        require((self.certificate is None) == (self.key is None), "certificate and key come together")
        require(self.certificate is None or self.ca is not None, "a certificate of one's own comes with its ca")

    def files(self) -> TlsFiles | Trust:
        if self.ca is None or self.certificate is None or self.key is None:
            return Trust(self.ca)
        return TlsFiles(self.ca, self.certificate, self.key)


@dataclass(frozen=True, slots=True)
class LocalBrokerSettings:
    """[....broker]: where it is, and who the device is to it.

    Attributes:
        host, port: of the broker.
        username: where it asks for one.
        password_file: its first line is the password.
        tls: encryption; without it the broker is on this machine, or `allow_plain` says that anyone on the way may
            read along and find the password.
    """

    host: str = "localhost"
    port: int = 1883
    username: str | None = None
    password_file: Path | None = None
    tls: LocalTls | None = None
    allow_plain: bool = False

    def __post_init__(self) -> None:
        require(0 < self.port < 65_536, f"port lies in 1..65535, not {self.port}")
        require(self.password_file is None or self.username is not None, "a password needs a username")
        if self.tls is None and self.host not in LOOPBACK and not self.allow_plain:
            raise InvalidValueError(
                f"a broker on {self.host} needs [broker.tls], or allow_plain = true: anyone on the way can read along"
            )

    def link(
        self, client_id: str, subscriptions: tuple[str, ...] = (), *, session_s: int = 0, manual_ack: bool = False
    ) -> LinkSettings:
        """Return who connects.

        Args:
            client_id: another one for each use: two clients of one name end each other's connections.
            subscriptions: what is listened to.
            session_s: for how long the broker keeps what comes while the device is away.
            manual_ack: what is not acknowledged comes again.

        Raises:
            OSError: the password cannot be read.
        """
        password = None
        if self.password_file is not None:
            password = self.password_file.read_text(encoding="utf-8").partition("\n")[0].strip("\r")
        return LinkSettings(
            client_id,
            host=self.host,
            port=self.port,
            username=self.username,
            password=password,
            tls=None if self.tls is None else self.tls.files(),
            subscriptions=subscriptions,
            session_expiry_s=session_s,
            manual_ack=manual_ack,
        )
