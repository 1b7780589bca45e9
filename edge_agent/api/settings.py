"""[api]: the local API. Read by the supervisor too: no numpy, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fd_protocol.identity import require


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the local API listens; without [api] nowhere.

    Attributes:
        socket: path of the Unix socket; None: `api.sock` in the state folder.
        port: also on 127.0.0.1, with the page for labels; None: the socket alone.
        token_file: what a request over TCP must know; None: `api.token` in the state folder. Made where it is missing.
        metrics: whether `/metrics` answers.
        body_mb: most of a request.
        connections: most at once.
    """

    socket: Path | None = None
    port: int | None = None
    token_file: Path | None = None
    metrics: bool = False
    body_mb: float = 8.0
    connections: int = 16

    def __post_init__(self) -> None:
        require(self.port is None or 0 < self.port < 65_536, "port lies in 1..65535")
        require(0.001 <= self.body_mb <= 1024.0, "body_mb lies in 0.001..1024")
        require(2 <= self.connections <= 256, "connections lie in 2..256")

    @property
    def body_bytes(self) -> int:
        return int(self.body_mb * 1_000_000)

    def socket_in(self, folder: Path) -> Path:
        """Return the path of the socket of a device whose state lies in `folder`."""
        return self.socket or folder / "api.sock"

    def token_in(self, folder: Path) -> Path:
        """Return the path of the token, likewise."""
        return self.token_file or folder / "api.token"
