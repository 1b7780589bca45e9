"""What a program sees of its broker: events that arrive and three verbs.

    link.events  <- LinkUp, Arrived, Published, PublishRefused, LinkDown
    link.publish, link.ack, link.close

Promises of every link, over MQTT or in memory:
- It is never finished trying: it connects, and connects again, until it is closed.
- `LinkUp` says that the subscriptions stand, and comes before any `Arrived` of that connection. Retained messages of
  the subscriptions arrive again at every connection.
- A publish is delivered at least once, in order, and ends in exactly one `Published` or `PublishRefused`, unless the
  link is closed first. `Published` means that the broker has it, never that anyone stored it.
- With `manual_ack` a message that was not acknowledged comes again at the next connection.

What is deliberately absent: durability. Whoever must not lose a message keeps it until the receipt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, Protocol, TypeAlias

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require

# Reasons of `PublishRefused` that a program may want to tell apart, by their names in MQTT 5, section 2.4.
NOT_AUTHORIZED = "Not authorized"
PACKET_TOO_LARGE = "Packet too large"
QUOTA_EXCEEDED = "Quota exceeded"
MESSAGE_EXPIRED = "Message expired"  # ours: MQTT lets the broker drop it without a word

_TOPIC_MAX_BYTES = 65_535
_PUBLISH_OVERHEAD_BYTES = 1 + 4 + 2 + 2 + 1 + 5
"""Type, length, topic length, packet id, property length, expiry."""


class Hindrance(str, Enum):
    """Kinds of reasons for having no connection, as far as one waits differently, or the owner must do something."""

    UNREACHABLE = "unreachable"
    CLOCK = "clock"
    """A certificate is not valid yet: this machine's clock has not been set."""
    IDENTITY = "identity"
    """We have no certificate yet."""
    CERTIFICATE = "certificate"
    """The broker's certificate does not convince us, or ours does not convince the broker."""
    REFUSED = "refused"
    """The broker answered, and will not have us."""
    TAKEN_OVER = "taken_over"
    """Another client came under our name, and the broker keeps one of a name."""
    HUNG_UP = "hung_up"
    """There was a connection, and the broker ended it without a word."""
    LOST = "lost"
    """There was a connection, and it broke."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker took us in and we hear what we subscribed to; `max_packet_bytes` is the largest packet it accepts."""

    session_present: bool
    max_packet_bytes: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A connection ended or could not be made. The link tries again by itself, after `retry_s`."""

    reason: str
    kind: Hindrance = field(default=Hindrance.UNREACHABLE, compare=False)
    retry_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message; `token` is the link's own, give the whole value to `ack`."""

    topic: str
    payload: bytes = field(repr=False)
    retained: bool
    token: int


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has the message that `publish` answered with `token`."""

    token: int


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """The broker will never take the message, so sending it again is of no use."""

    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of a link's TCP streams since it was made, TLS and every connection included."""

    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sent_bytes + other.sent_bytes, self.received_bytes + other.received_bytes)


LinkEvent: TypeAlias = LinkUp | LinkDown | Arrived | Published | PublishRefused


class Link(Protocol):
    """One client's place at a broker. Every verb may be called from any thread and returns at once."""

    @property
    def events(self) -> SimpleQueue[LinkEvent]: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> int:
        """Hand over a message and return its token. Empty and retained clears the topic.

        Raises:
            InvalidValueError: `topic` cannot be published to.
        """

    def ack(self, arrived: Arrived) -> None:
        """Confirm a message to the broker. Says nothing about one of an earlier connection: it comes again."""

    def close(self) -> None:
        """Leave without the will. What was not yet acknowledged is forgotten."""


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """Return the most bytes that a publish takes on the wire."""
    return _PUBLISH_OVERHEAD_BYTES + len(topic.encode()) + payload_bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one identity: whom it trusts, its chain (leaf first), its private key.

    `alpn` names protocols for a gateway that shares a port, 443 mostly, between MQTT and others by that name.
    """

    ca: Path
    certificate: Path
    key: Path
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A way out of a closed network: `http` for one that knows CONNECT, `socks5`. The proxy resolves the broker's name.

    `bypass` lists hosts that are reached without it, as NO_PROXY does.
    """

    kind: Literal["http", "socks5"]
    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    bypass: str = ""

    def __post_init__(self) -> None:
        require(bool(self.host) and 0 < self.port < 65_536, f"no proxy at {self.host!r} port {self.port}")

    def __str__(self) -> str:
        return f"{self.kind} proxy {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Trust:
    """TLS of a client without a certificate: whom it trusts; None = whom the system trusts."""

    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this client vanishes for longer than `delay_s`."""

    topic: str
    payload: bytes
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Who connects where, and what it listens to.

    Attributes:
        client_id: names the session at the broker; one at a time, a second connection ends the first.
        tls: None means plain TCP, fit for loopback only.
        password: beside `username`, where the broker asks for one.
        proxy: what stands between us and the broker; None = the environment says (`dialling.proxy_of`).
        session_expiry_s: how long the broker queues for us while we are away.
        receive_maximum: un-acknowledged messages the broker may have under way to us.
        only_acknowledged: whether messages of QoS 0 are passed over: nobody acknowledges them, so the broker
            sends as many of them as it has, however slow we are.
        reconnect_min_s, reconnect_max_s: the longest of the first waits between two connections, and of all.
        stable_s: a connection that lasts for that long makes the next wait a first one.
        clean_start: forget what the broker kept for this name, and have a will said. Only to end somebody's session.
        obstacle: asked before each connection; what it returns is why there can be none yet. Empty: none.
    """

    client_id: str
    host: str = "127.0.0.1"
    port: int = 8883
    username: str | None = None
    tls: TlsFiles | Trust | None = None
    proxy: Proxy | None = None
    subscriptions: tuple[str, ...] = ()
    will: Will | None = None
    manual_ack: bool = False
    only_acknowledged: bool = False
    keepalive_s: int = 60
    session_expiry_s: int = 14 * 24 * 3600
    receive_maximum: int = 20
    reconnect_min_s: float = 1.0
    reconnect_max_s: float = 60.0
    password: str | None = field(default=None, repr=False)
    stable_s: float = 60.0
    clean_start: bool = False
    obstacle: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(bool(self.client_id), "client_id must not be empty: a session needs a name")
        require(bool(self.host) and 0 < self.port < 65_536, f"no broker at {self.host!r} port {self.port}")
        require(0 < self.keepalive_s < 65_536, f"keepalive_s must be 1 to 65535, not {self.keepalive_s}")
        require(0 <= self.session_expiry_s < 1 << 32, "session_expiry_s must fit 32 bits")
        require(0 < self.receive_maximum < 65_536, f"receive_maximum must be 1 to 65535, not {self.receive_maximum}")
        require(0 < self.reconnect_min_s <= self.reconnect_max_s, "reconnect_min_s must be above 0, at most _max_s")
        if self.will is not None:
            check_topic(self.will.topic)


def check_topic(topic: str) -> str:
    """Return `topic` if MQTT lets one publish to it.

    Raises:
        InvalidValueError: empty, longer than 65535 bytes of UTF-8, or with a wildcard or NUL in it.
    """
    try:
        size = len(topic.encode())
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"topic {topic!r} is not UTF-8") from error
    if not 0 < size <= _TOPIC_MAX_BYTES or any(sign in topic for sign in "+#\0"):
        raise InvalidValueError(f"topic {topic[:80]!r} cannot be published to")
    return topic
