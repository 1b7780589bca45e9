"""What went through a TCP connection, as the kernel counts it (struct tcp_info of Linux 4.1 and newer).

The stream's bytes that the peer has acknowledged, and those that came: what a library adds, TLS and its handshake say,
is in them. Retransmissions and headers are not.
"""

from __future__ import annotations

import os
import socket
import struct

from fd_runtime.links.link import Traffic

_ACKED_AND_RECEIVED = struct.Struct("=QQ")
_OFFSET = 120
"""Of tcpi_bytes_acked; tcpi_bytes_received follows. Before them: 8 bytes of flags, 24 words, two rates of 64 bits."""


def count(descriptor: int) -> Traffic | None:
    """Return what went through the connection of this descriptor; None: it is closed, or the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _ACKED_AND_RECEIVED.size)
    except OSError:
        return None
    if len(info) < _OFFSET + _ACKED_AND_RECEIVED.size:
        return None
    acknowledged, received = _ACKED_AND_RECEIVED.unpack_from(info, _OFFSET)
    return Traffic(acknowledged, received)
