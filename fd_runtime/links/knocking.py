"""Is a broker there, and would it let us in? Asked without a word of MQTT, so that nobody's session is taken over."""

from __future__ import annotations

import contextlib
import socket

from fd_runtime.links.link import TlsFiles
from fd_runtime.links.mqtt_connection import tls_context

_CONNECT_S = 5.0
_SILENCE_S = 1.0
"""In TLS 1.3 a server turns a certificate down after the handshake; one that waits for us to speak has not."""


def knock(host: str, port: int, tls: TlsFiles | None) -> str:
    """Return how the broker answers: the version of TLS, or `TCP`.

    Raises:
        InvalidValueError: a TLS file is missing or not what it should be.
        OSError: nobody is there, it is not who it should be, or it does not want our certificate.
    """
    context = tls_context(tls) if tls is not None else None
    with socket.create_connection((host, port), _CONNECT_S) as plain:
        if context is None:
            return "TCP"
        with context.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(_SILENCE_S)
            with contextlib.suppress(TimeoutError):
                if not secure.recv(1):
                    raise ConnectionResetError("it ended the connection after the handshake")
            return secure.version() or "TLS"
