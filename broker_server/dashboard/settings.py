"""Where the dashboard listens, who may look and who may command. It refuses to exist where that would be unsafe.

On loopback whoever is on the machine may look. On any other address everybody logs in, over TLS: with a token, or at a
proxy that says who they are. Commands always need the operator's token, or an operator whom the proxy names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_text

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """PEM files that browsers are answered with: the chain (leaf first) and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """A proxy that logs people in (OpenID Connect) and says who they are.

    Attributes:
        addresses: of the proxy, or networks; nobody else's word is taken.
        user_header: that the proxy sets, and strips from what it is sent.
        operators: names that may command; everybody else whom the proxy lets in may look.
    """

    addresses: tuple[str, ...]
    user_header: str = "X-Forwarded-Email"
    operators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.addresses:
            raise InvalidValueError("a proxy has an address: without it nobody is believed")
        for address in self.addresses:
            _check_network(address)
        if not _HEADER.fullmatch(self.user_header):
            raise InvalidValueError(f"{self.user_header!r} is no name of a header")
        for name in self.operators:
            check_text(name, "an operator")

    def is_trusted(self, address: str) -> bool:
        """Whether a connection from `address` is the proxy's."""
        try:
            peer = ip_address(address)
        except ValueError:
            return False
        return any(peer in ip_network(network) for network in self.addresses)


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """The `[dashboard]` of a federation's settings.

    Attributes:
        enabled: whether `broker-server run` starts it.
        host, port: where it listens.
        viewer_token_file: file with the token that lets people look; without it whoever reaches loopback may.
        operator_token_file: file with the token that lets people command; without it only a proxy's operators may.
        allowed_hosts: names under which browsers reach it, beside those of loopback.
        crl: the broker's revocation list, whose end is watched.
        tls: what it answers with; required off loopback, unless a proxy does that.
        proxy: who logs people in, if anybody does.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8089
    viewer_token_file: Path | None = None
    operator_token_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    crl: Path | None = None
    tls: ServingFiles | None = None
    proxy: ProxySettings | None = field(default=None)

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise InvalidValueError("a port lies in 1..65535")
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise InvalidValueError(f"allowed_hosts: {name!r} is no host name in lower case, without a port")
        if not self.is_local:
            self._check_remote()

    def _check_remote(self) -> None:
        if self.viewer_token_file is None and self.proxy is None:
            raise InvalidValueError(f"on {self.host} everybody logs in: set viewer_token_file or [dashboard.proxy]")
        if self.tls is None and self.proxy is None:
            raise InvalidValueError(f"on {self.host} tokens travel: set [dashboard.tls], or [dashboard.proxy]")
        if not self.allowed_hosts:
            raise InvalidValueError(f"on {self.host} say allowed_hosts: the names under which browsers come")

    @property
    def is_local(self) -> bool:
        """Whether it listens where only this machine can reach it."""
        return self.host in _LOOPBACK

    @property
    def is_open(self) -> bool:
        """Whether one may look without a login."""
        return self.is_local and self.viewer_token_file is None and self.proxy is None

    @property
    def is_secure(self) -> bool:
        """Whether browsers come over TLS, so that a cookie may insist on it."""
        return self.tls is not None or not self.is_local

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a request may be for."""
        return (*LOOPBACK_NAMES, *self.allowed_hosts)


def _check_network(address: str) -> None:
    try:
        ip_network(address)
    except ValueError as error:
        raise InvalidValueError(f"a proxy's {error}") from error
