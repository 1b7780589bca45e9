"""A link over MQTT 5.

    program --- publish, ack ---> commands --+
                                             |   one thread: connect, read, write, wait, connect again
    program <------- events -----------------+

Invariants:
- The two queues are all that threads share: no lock, and no code of the program runs in the network thread.
- Un-acknowledged publishes wait here, in order, and go out again at the next connection. A client library's own queue
  lets an older retained message overtake, and so overwrite, a newer one.
- Nothing that a broker does ends the thread: every connection ends in a `LinkDown` and is followed by another.

What is deliberately absent: QoS 0 and 2, topic aliases, durability.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from queue import SimpleQueue

from fd_runtime.links.dialling import check_proxy, proxy_of
from fd_runtime.links.link import Arrived, Hindrance, LinkDown, LinkEvent, LinkSettings, Traffic, check_topic
from fd_runtime.links.mqtt_connection import Connection, Message, hindrance_of, tls_context
from fd_runtime.links.reconnecting import Retries
from fd_runtime.links.waking import Waker

_CLOSE_S = 5.0


class MqttLink:
    """A `Link` to a real broker. Connects as soon as it is made; `traffic` is what it has sent and received by now.

    Raises:
        InvalidValueError: a TLS file is missing or not what it should be (with an obstacle that is looked at later), or
            the proxy is none that we can use.
    """

    def __init__(self, settings: LinkSettings) -> None:
        if settings.tls is not None and settings.obstacle is None:
            tls_context(settings.tls)  # the caller's mistake shows here, not in a thread
        check_proxy(proxy_of(settings.host, settings.proxy))
        self.events: SimpleQueue[LinkEvent] = SimpleQueue()
        self.traffic = Traffic()
        self._settings = settings
        self._tokens = itertools.count(1)
        self._commands: deque[Message | Arrived] = deque()
        self._outbox: dict[int, Message] = {}
        self._closing, self._hurried = threading.Event(), threading.Event()
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name=f"link {settings.client_id}", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> int:
        expires_at_s = None if expiry_s is None else time.monotonic() + expiry_s
        message = Message(next(self._tokens), check_topic(topic), payload, retain, expires_at_s)
        self._submit(message)
        return message.token

    def ack(self, arrived: Arrived) -> None:
        self._submit(arrived)

    def hurry(self) -> None:
        """Connect now, where it waits before the next try."""
        self._hurried.set()

    def close(self) -> None:
        self._closing.set()
        self._hurried.set()
        self._waker.wake()
        self._thread.join(_CLOSE_S)

    def _submit(self, command: Message | Arrived) -> None:
        self._commands.append(command)
        self._waker.wake()

    def _run(self) -> None:
        retries = Retries(self._settings)
        while not self._closing.is_set():
            self._hurried.clear()
            connection = Connection(self._settings, self._outbox, self.events, self._tokens)
            kind, reason = self._serve(connection)
            kind, wait_s = retries.after(kind, connection.up_s)
            self.events.put(LinkDown(reason, kind, wait_s))
            if not self._closing.is_set():
                self._hurried.wait(wait_s)
        self._waker.close()

    def _serve(self, connection: Connection) -> tuple[Hindrance, str]:
        """Run one connection to its end and return why it ended."""
        before = self.traffic
        try:
            connection.open()
            while connection.is_open:
                self._obey(connection)
                connection.turn(self._waker)
                self.traffic = before + connection.traffic
        except Exception as error:  # noqa: BLE001 - a foreign broker's bytes in a foreign parser: the link outlives both
            kind = hindrance_of(error)
            return Hindrance.LOST if connection.was_up else kind, str(error) or type(error).__name__
        finally:
            connection.abandon()
        return connection.end_kind, connection.end_reason

    def _obey(self, connection: Connection) -> None:
        is_closing = self._closing.is_set()  # asked first: what was published before `close` is still sent
        while self._commands:
            match self._commands.popleft():
                case Message() as message:
                    self._outbox[message.token] = message
                    connection.enqueue(message)
                case Arrived(token=token):
                    connection.ack(token)
        connection.send_waiting()
        if is_closing:
            connection.leave()
