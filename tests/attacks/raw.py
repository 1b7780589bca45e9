"""MQTT packets byte by byte, and a client that sends them: what no decent library lets one send."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass

from broker_server.brokers.loopback import LOOPBACK
from fd_runtime.links.bare_publish import bare
from fd_runtime.links.link import TlsFiles

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL = 1, 2, 3, 4, 5, 6
SUBSCRIBE, SUBACK, PING, PONG, DISCONNECT = 8, 9, 12, 13, 14
USER_PROPERTY, TOPIC_ALIAS, SESSION_EXPIRY, RECEIVE_MAXIMUM = 0x26, 0x23, 0x11, 0x21
PATIENCE_S = 5.0


def varint(value: int) -> bytes:
    out = b""
    while True:
        value, digit = value >> 7, value & 127
        out += bytes((digit | (128 if value else 0),))
        if not value:
            return out


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    return bytes((kind << 4 | flags,)) + varint(len(body)) + body


def properties(data: bytes, version: int) -> bytes:
    return varint(len(data)) + data if version == 5 else b""


def connect(
    client_id: str = "mallory",
    *,
    version: int = 5,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    props: bytes = b"",
    keepalive_s: int = 60,
) -> bytes:
    flags = (2 if clean else 0) | (0 if will is None else 0x04 | 0x08 | 0x20)
    body = text("MQTT") + bytes((version, flags)) + keepalive_s.to_bytes(2, "big") + properties(props, version)
    body += text(client_id)
    if will is not None:
        body += properties(b"", version) + text(will[0]) + text(will[1])
    return packet(CONNECT, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"x",
    *,
    qos: int = 1,
    packet_id: int = 1,
    retain: bool = False,
    props: bytes = b"",
    version: int = 5,
) -> bytes:
    head = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    return packet(PUBLISH, head + properties(props, version) + payload, qos << 1 | retain)


def subscribe(*filters: str, packet_id: int = 1, version: int = 5) -> bytes:
    body = packet_id.to_bytes(2, "big") + properties(b"", version)
    return packet(SUBSCRIBE, body + b"".join(text(one) + b"\x00" for one in filters), 2)


def user_properties(count: int) -> bytes:
    return (bytes((USER_PROPERTY,)) + text("") + text("")) * count


@dataclass(frozen=True, slots=True)
class Packet:
    """One that came; `reason` of a CONNACK, PUBACK or DISCONNECT, 0 where there is none."""

    kind: int
    body: bytes

    @property
    def reason(self) -> int:
        at = {CONNACK: 1, PUBACK: 2, PUBREC: 2, DISCONNECT: 0}.get(self.kind, 0)
        return self.body[at] if len(self.body) > at else 0


class HungUpError(Exception):
    """The broker ended the connection; says how, where it did."""


def tls_socket(port: int, files: TlsFiles | None, ca: object = None, timeout_s: float = PATIENCE_S) -> ssl.SSLSocket:
    """Connect to `localhost`, with a certificate or without one."""
    context = ssl.create_default_context(cafile=str(ca or files.ca))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context.wrap_socket(tcp_socket(port, timeout_s), server_hostname="localhost")


def tcp_socket(port: int, timeout_s: float = PATIENCE_S) -> socket.socket:
    opened = socket.create_connection((LOOPBACK, port), timeout=timeout_s)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a last small segment waits for nobody's ACK
    return opened


class RawClient:
    """Sends any bytes, and reads packets; it answers nothing by itself."""

    def __init__(self, port: int, files: TlsFiles | None, first: bytes | None = None) -> None:
        """Without files it speaks in the clear, to a broker of a test that lets everybody in."""
        self.socket = tcp_socket(port) if files is None else tls_socket(port, files)
        self._read = b""
        if first is not None:
            self.send(first)
            answer = self.receive()
            if answer.kind != CONNACK or answer.reason:
                self.close()
                raise HungUpError(f"CONNACK {answer.reason:#x}")

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise HungUpError(str(error)) from error

    def receive(self, timeout_s: float = PATIENCE_S) -> Packet:
        """Return the next packet.

        Raises:
            HungUpError: the broker has ended the connection.
            TimeoutError: nothing comes.
        """
        self.socket.settimeout(timeout_s)
        while True:
            found = _cut(self._read)
            if found is not None:
                one, self._read = found
                return one
            try:
                came = self.socket.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError as error:
                raise HungUpError(str(error)) from error
            if not came:
                raise HungUpError("closed")
            self._read += came

    def answer(self, kind: int, timeout_s: float = PATIENCE_S) -> Packet:
        """Return the next packet of a kind; a DISCONNECT ends the waiting.

        Raises:
            HungUpError: the broker has said so, or hung up.
        """
        while (came := self.receive(timeout_s)).kind != kind:
            if came.kind == DISCONNECT:
                raise HungUpError(f"DISCONNECT {came.reason:#x}")
        return came

    def is_alive(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether the broker still answers this client."""
        try:
            self.send(packet(PING, b""))
            self.answer(PONG, timeout_s)
        except (HungUpError, TimeoutError):
            return False
        return True

    def heard(self) -> list[tuple[str, bytes]]:
        """Return every (topic, payload) that came, up to the answer to a ping."""
        with contextlib.suppress(HungUpError):
            self.send(packet(PING, b""))
        found = []
        while True:
            try:
                came = self.receive()
            except (HungUpError, TimeoutError):
                return found
            if came.kind == PONG:
                return found
            if came.kind == PUBLISH:
                found.append(_published(came.body))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _cut(data: bytes) -> tuple[Packet, bytes] | None:
    length, shift = 0, 0
    for at, byte in enumerate(data[1:5], 1):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            end = at + 1 + length
            return (Packet(data[0] >> 4, data[at + 1 : end]), data[end:]) if len(data) >= end else None
    return None


def _published(body: bytes) -> tuple[str, bytes]:
    """All that this client asks for comes with QoS 0 and MQTT 5."""
    length = int.from_bytes(body[:2], "big")
    topic = body[2 : 2 + length].decode("utf-8", "replace")
    return topic, bare(PUBLISH << 4, body)[2 + length + 1 :]
