"""One MQTT 5 connection, from its CONNECT to the end of its socket; the only home of paho.

Every connection is a fresh paho client, driven by the one thread that made it. Packet ids and pending acks end with
it: the broker reuses the ids, so an ack kept for the next connection would confirm another message.
"""

from __future__ import annotations

import itertools
import logging
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import Any

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.links.bare_publish import bare
from fd_runtime.links.certificate import outlook
from fd_runtime.links.dialling import DIAL_S, dial, proxy_of
from fd_runtime.links.link import (
    MESSAGE_EXPIRED,
    PACKET_TOO_LARGE,
    Arrived,
    Hindrance,
    LinkEvent,
    LinkSettings,
    LinkUp,
    Published,
    PublishRefused,
    TlsFiles,
    Traffic,
    Trust,
    packet_bytes,
)
from fd_runtime.links.tcp_count import count
from fd_runtime.links.waking import Waker
from fd_runtime.put_off import put_off

with put_off("urllib.request"):  # for the proxy of a connection that `_Client` makes itself; 2 MB with http and mail
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions

_PACKET_MAX_BYTES = 268_435_460  # MQTT's own limit, where the broker states none
_IN_FLIGHT_MAX = 100  # what a lost connection makes us send twice
_QOS = 0x06
_SLOW_S = 30 * 86_400.0
_PACKETS_A_TURN = 64
_TICK_S = 1.0  # how often keepalive is looked at
_TAKEN_OVER = 0x8E  # reason code of a DISCONNECT, MQTT 5 section 3.14.2.1
_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID


class ClockNotSetError(FedistillError):
    """No certificate can be checked: it is too early by this machine's clock."""


class NoIdentityError(FedistillError):
    """Whoever made the link says that there can be no connection yet."""


@dataclass(frozen=True, slots=True)
class Message:
    """A publish on its way; `expires_at_s` is on the monotonic clock."""

    token: int
    topic: str
    payload: bytes
    retain: bool
    expires_at_s: float | None

    @property
    def packet_bytes(self) -> int:
        return packet_bytes(self.topic, len(self.payload))


class Connection:
    """Sends what is in `outbox`, oldest first, and takes out of it what the broker answered.

    Attributes:
        was_up: the broker took us in, and what we listen to is subscribed.
        end_reason: why it is over: what the broker said, else what the network did.
        traffic: what went through it, as it was last looked at.
        end_kind: what kind of reason that is.
    """

    def __init__(
        self,
        settings: LinkSettings,
        outbox: dict[int, Message],
        events: SimpleQueue[LinkEvent],
        tokens: itertools.count[int],
    ) -> None:
        self.was_up = False
        self.end_reason = ""
        self.traffic = Traffic()
        self.end_kind = Hindrance.UNREACHABLE
        self._up_at_s: float | None = None
        self._settings = settings
        self._outbox = outbox
        self._events = events
        self._tokens = tokens
        self._waiting = deque(outbox.values())
        self._in_flight: dict[int, int] = {}  # packet id -> token of a message of ours
        self._unacked: dict[int, int] = {}  # token of a message that arrived -> packet id
        self._early: list[Arrived] = []  # came before we were up: the session's queue is faster than SUBACK
        self._greeting: LinkUp | None = None
        self._max_packet_bytes = _PACKET_MAX_BYTES
        self._window = 0  # the broker's receive maximum
        self._is_leaving = False
        self._last_error = _LastError()
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = _Client(
            self._settings,
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id,
            protocol=paho.MQTTv5,
            manual_ack=self._settings.manual_ack,
        )
        client.max_inflight_messages = 0  # the window is kept here
        client.connect_timeout = DIAL_S
        client.enable_logger(self._last_error.logger)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    @property
    def is_open(self) -> bool:
        return self._client.socket() is not None

    @property
    def up_s(self) -> float:
        """Return for how long it has been up; 0 = it never was."""
        return 0.0 if self._up_at_s is None else time.monotonic() - self._up_at_s

    def open(self) -> None:
        """Send CONNECT; its answer comes in a `turn`.

        Raises:
            NoIdentityError, ClockNotSetError: it is of no use to try.
            OSError: nobody is there, or TLS could not be agreed on.
        """
        settings, client = self._settings, self._client
        if settings.obstacle is not None and (reason := settings.obstacle()):
            raise NoIdentityError(reason)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls is not None:
            context = tls_context(settings.tls)  # read anew: a renewed certificate counts at once
            _check_clock(context, settings.tls)
            client.tls_set_context(context)
        if settings.will is not None:
            delay = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=settings.will.delay_s)
            client.will_set(settings.will.topic, settings.will.payload, qos=1, retain=True, properties=delay)
        session = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=settings.session_expiry_s,
            ReceiveMaximum=settings.receive_maximum,
        )
        # By default paho's first connection wipes the session that the last process left for us.
        is_clean = settings.clean_start
        client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=is_clean, properties=session)

    def turn(self, waker: Waker) -> None:
        """Wait for the broker, a command or a tick, then read and write what is due."""
        sock: Any = self._client.socket()
        if sock is None:
            return
        poller = select.poll()  # no limit on descriptors, unlike select
        poller.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poller.register(waker, select.POLLIN)
        # What TLS has decrypted already shows on no descriptor.
        has_pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = dict(poller.poll(0 if has_pending else _TICK_S * 1000))
        self.traffic = count(sock.fileno()) or self.traffic
        if waker.fileno() in ready:
            waker.rest()
        due = ready.get(sock.fileno(), 0)
        if due & ~select.POLLOUT or has_pending:
            self._read_what_is_here()
        if due & select.POLLOUT:
            self._client.loop_write()
        self._client.loop_misc()

    def _read_what_is_here(self) -> None:
        """Read a packet, and those that TLS has decrypted with it: the kernel need not be asked for each."""
        for _ in range(_PACKETS_A_TURN):
            self._client.loop_read()
            sock: Any = self._client.socket()
            if not isinstance(sock, ssl.SSLSocket) or sock.pending() == 0:
                return

    def enqueue(self, message: Message) -> None:
        self._waiting.append(message)

    def send_waiting(self) -> None:
        """Send as much as the broker's receive maximum allows."""
        while self.was_up and self._waiting and len(self._in_flight) < self._window:
            message = self._waiting.popleft()
            now_s = time.monotonic()
            if message.packet_bytes > self._max_packet_bytes:
                # paho would send it, and the broker close the connection, at every connection.
                self._refuse(message.token, PACKET_TOO_LARGE)
            elif message.expires_at_s is not None and message.expires_at_s <= now_s:
                self._refuse(message.token, MESSAGE_EXPIRED)
            else:
                self._send(message, now_s)

    def ack(self, token: int) -> None:
        packet_id = self._unacked.pop(token, None)
        if packet_id is not None:
            self._client.ack(packet_id, 1)

    def leave(self) -> None:
        """Say goodbye, so that the broker keeps the will to itself. The socket ends in a later `turn`."""
        if not self._is_leaving:
            self._is_leaving = True
            self._client.disconnect()

    def abandon(self) -> None:
        """Close the socket at once: left half dead, it would count as a second client of our name."""
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _send(self, message: Message, now_s: float) -> None:
        expiry = None
        if message.expires_at_s is not None:
            left_s = max(1, round(message.expires_at_s - now_s))
            expiry = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=left_s)
        info = self._client.publish(message.topic, message.payload, 1, message.retain, expiry)
        self._in_flight[info.mid] = message.token

    def _refuse(self, token: int, reason: str) -> None:
        del self._outbox[token]
        self._events.put(PublishRefused(token, reason))

    def _on_connect(self, _client: Any, _data: Any, flags: paho.ConnectFlags, code: ReasonCode, granted: Any) -> None:
        if code.is_failure:
            self.end_reason, self.end_kind = str(code), Hindrance.REFUSED
            return
        self._window = min(getattr(granted, "ReceiveMaximum", _IN_FLIGHT_MAX), _IN_FLIGHT_MAX)
        self._max_packet_bytes = getattr(granted, "MaximumPacketSize", _PACKET_MAX_BYTES)
        self._greeting = LinkUp(flags.session_present, self._max_packet_bytes)
        if self._settings.subscriptions:
            options = SubscribeOptions(qos=1)
            self._client.subscribe([(topic_filter, options) for topic_filter in self._settings.subscriptions])
        else:
            self._come_up(self._greeting)

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        """A link that cannot hear is not up, though Mosquitto's `acl_file` grants all and filters at delivery."""
        for topic_filter, code in zip(self._settings.subscriptions, codes, strict=True):
            if code.is_failure:
                self.end_reason = f"subscription to {topic_filter} refused: {code}"
                self.end_kind = Hindrance.REFUSED
                self.leave()
                return
        if self._greeting is not None:
            self._come_up(self._greeting)

    def _come_up(self, greeting: LinkUp) -> None:
        self.was_up, self._up_at_s, self.end_kind = True, time.monotonic(), Hindrance.LOST
        self._events.put(greeting)
        for early in self._early:
            self._events.put(early)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        token = next(self._tokens)
        if self._settings.manual_ack and message.qos == 1:
            self._unacked[token] = message.mid
        arrived = Arrived(message.topic, bytes(message.payload), message.retain, token)
        if self.was_up:
            self._events.put(arrived)
        else:
            self._early.append(arrived)

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        token = self._in_flight.pop(mid)
        if code.is_failure:
            self._refuse(token, str(code))
        else:
            del self._outbox[token]
            self._events.put(Published(token))

    def _on_disconnect(
        self, _client: Any, _data: Any, flags: paho.DisconnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        if code.value == _TAKEN_OVER:
            self.end_kind = Hindrance.TAKEN_OVER
        elif self.was_up and not flags.is_disconnect_packet_from_server and not self._last_error.text:
            self.end_kind = Hindrance.HUNG_UP
            self.end_reason = self.end_reason or "the broker ended the connection without a word"
        self.end_reason = self.end_reason or self._explain(self._last_error.text or str(code))

    def _explain(self, network_error: str) -> str:
        """Under TLS 1.3 a client learns too late, and often not at all, that its certificate was refused."""
        if self._settings.tls is None or self._greeting is not None:
            return network_error
        self.end_kind = Hindrance.CERTIFICATE
        return f"the broker hung up unanswered, as it does on a certificate it does not accept: {network_error}"


class _Client(paho.Client):
    """paho, but for the way in which it dials, and for what it reads of a message.

    Its own way knows proxies by a library that breaks TLS behind some of them; its own reading takes time by the square
    of a message's properties (`bare_publish`). Tests see to it that paho calls both of ours.
    """

    def __init__(self, settings: LinkSettings, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._way = settings.host, settings.port, settings.proxy
        self._only_acknowledged = settings.only_acknowledged

    def _create_socket_connection(self) -> socket.socket:
        host, port, chosen = self._way
        return dial(host, port, proxy_of(host, chosen))

    def _handle_publish(self) -> Any:
        packet: Any = self._in_packet
        if self._only_acknowledged and not packet["command"] & _QOS:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        packet["packet"] = bare(packet["command"], bytes(packet["packet"]))
        return super()._handle_publish()


class _LastError(logging.Handler):
    """Keeps paho's last complaint: of a refused certificate its callbacks say only `Unspecified error`."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""
        self.logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001 - lives and dies with one connection
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def tls_context(files: TlsFiles | Trust) -> ssl.SSLContext:
    """Return a client's side of TLS, 1.2 or newer, mutual where it has a certificate; it checks the broker's name.

    Raises:
        InvalidValueError: a file is missing, or is not the PEM it should be.
    """
    paths = [files.ca] if isinstance(files, Trust) else [files.ca, files.certificate, files.key]
    for path in paths:
        if path is not None and not path.is_file():
            raise InvalidValueError(f"tls: no file {path}")
    try:
        context = ssl.create_default_context(cafile=files.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if isinstance(files, TlsFiles):
            context.load_cert_chain(files.certificate, files.key)
            if files.alpn:
                context.set_alpn_protocols(list(files.alpn))
    except OSError as error:
        raise InvalidValueError(f"tls: {' or '.join(map(str, paths))}: {error}") from error
    return context


def _check_clock(context: ssl.SSLContext, files: TlsFiles | Trust) -> None:
    """Believe no clock that is behind the certificates: it would make a broker's old key good again.

    Our own certificate was made after the authority's, and is renewed; a slow clock may lag a month behind it.

    Raises:
        ClockNotSetError: nothing that we trust exists yet, by this clock, so nobody need be asked.
    """
    begins = [ssl.cert_time_to_seconds(str(certificate["notBefore"])) for certificate in context.get_ca_certs()]
    floors: list[float] = [min(begins)] if begins else []
    if isinstance(files, TlsFiles):
        floors.append(outlook(files.certificate.read_text()).begin.timestamp() - _SLOW_S)
    now_s = time.time()
    if floors and now_s < max(floors):
        raise ClockNotSetError(
            f"the clock says {_date(now_s)}, the certificates begin on {_date(max(floors))}: waiting until it is set"
        )


def _date(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, timezone.utc).strftime("%Y-%m-%d")


def hindrance_of(error: Exception) -> Hindrance:
    """Return what kind of reason an exception is that ended the making of a connection."""
    if isinstance(error, NoIdentityError):
        return Hindrance.IDENTITY
    if isinstance(error, ClockNotSetError):
        return Hindrance.CLOCK
    if isinstance(error, ssl.SSLCertVerificationError):
        return Hindrance.CLOCK if error.verify_code == _NOT_YET_VALID else Hindrance.CERTIFICATE
    return Hindrance.UNREACHABLE


def _properties(packet_type: int, **values: int) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
