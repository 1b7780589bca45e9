"""Proxies: one that loses connections on command, as networks do unasked, and those that closed networks have.

    Proxy           forwards a port, until it is cut
    Recorder        keeps every byte that clients say
    ConnectProxy    speaks HTTP CONNECT
    SocksProxy      speaks SOCKS5

The latter two reach the same port whatever name they are asked for, and note the name.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable

from broker_server.brokers.loopback import LOOPBACK

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards `port` of loopback to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._is_open = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection without a word to either side."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def shut(self) -> None:
        """Cut, and let nobody through until `reopen`."""
        self._is_open = False
        self.cut()

    def reopen(self) -> None:
        self._is_open = True

    def close(self) -> None:
        self._listener.close()
        self.shut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._forward(self._listener.accept()[0])

    def _forward(self, client: socket.socket) -> None:
        if not self._is_open or not self._admits(client):
            client.close()
            return
        try:
            server = socket.create_connection((LOOPBACK, self._target_port), timeout=5)
        except OSError:
            client.close()
            return
        self._welcome(client)
        server.settimeout(None)
        self._sockets += [client, server]
        for source, sink, hear in ((client, server, self._hearing()), (server, client, _deaf)):
            threading.Thread(target=_pump, args=(source, sink, hear), daemon=True).start()

    def _hearing(self) -> Callable[[bytes], object]:
        """Return what hears the bytes of a client that is forwarded."""
        return _deaf

    def _admits(self, client: socket.socket) -> bool:
        """Hear what a client wants before it is forwarded."""
        return True

    def _welcome(self, client: socket.socket) -> None:
        """Tell a client that it is forwarded."""


class Recorder(Proxy):
    """Keeps what clients say, a stream for each connection."""

    def __init__(self, target_port: int) -> None:
        self.streams: list[bytearray] = []
        super().__init__(target_port)

    def _hearing(self) -> Callable[[bytes], object]:
        self.streams.append(bytearray())
        return self.streams[-1].extend


class ConnectProxy(Proxy):
    """An HTTP proxy; with a `word` for those alone who know it. Its answers come in pieces, as some proxies' do."""

    def __init__(self, target_port: int, word: str = "") -> None:
        self.asked: list[str] = []
        self._word = word
        super().__init__(target_port)

    def _admits(self, client: socket.socket) -> bool:
        request = _read_until(client, b"\r\n\r\n").decode("latin-1")
        line, *headers = request.split("\r\n")
        method, target, _ = line.split(" ")
        self.asked.append(target)
        expected = f"Proxy-Authorization: Basic {b64encode(self._word.encode()).decode()}"
        if method == "CONNECT" and (not self._word or expected in headers):
            return True
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        return False

    def _welcome(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"HTTP/1.1 200 Connection established\r\n", b"Via: 1.1 proxy\r\n", b"\r", b"\n"):
            client.sendall(piece)
            time.sleep(0.02)


class SocksProxy(Proxy):
    """A SOCKS5 proxy (RFC 1928); with a `word` (user:password, RFC 1929) for those alone who know it."""

    def __init__(self, target_port: int, word: str = "") -> None:
        self.asked: list[str] = []
        self._word = word
        super().__init__(target_port)

    def _admits(self, client: socket.socket) -> bool:
        _, count = _read_exactly(client, 2)
        methods = _read_exactly(client, count)
        method = 2 if self._word else 0
        client.sendall(bytes((5, method if method in methods else 0xFF)))
        if method not in methods or (self._word and not self._knows_word(client)):
            return False
        _, _, _, kind, length = _read_exactly(client, 5)
        if kind != 3:  # a name, which the proxy is to look up
            return False
        name = _read_exactly(client, length).decode()
        (port,) = struct.unpack(">H", _read_exactly(client, 2))
        self.asked.append(f"{name}:{port}")
        return True

    def _knows_word(self, client: socket.socket) -> bool:
        _read_exactly(client, 1)
        user, word = (_read_exactly(client, _read_exactly(client, 1)[0]) for _ in range(2))
        is_known = f"{user.decode()}:{word.decode()}" == self._word
        client.sendall(bytes((1, 0 if is_known else 1)))
        return is_known

    def _welcome(self, client: socket.socket) -> None:
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")


def _read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end) and (more := client.recv(1)):
        data += more
    return data


def _read_exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def _deaf(data: bytes) -> None:
    """Hear nothing."""


def _pump(source: socket.socket, sink: socket.socket, hear: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            hear(data)
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
