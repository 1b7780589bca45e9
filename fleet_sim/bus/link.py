"""A program's end of the in-memory bus, and what lies on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from fd_runtime.links.link import Arrived, LinkEvent, LinkSettings, check_topic

_ENVELOPE_BYTES = 9
"""MQTT's own share of a small publish: type, length (3), topic length (2), packet id (2), property length."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is published; on its way to a subscriber, `retain` says that it was kept and is not news."""

    topic: str
    payload: bytes
    retain: bool
    expires_at_s: float

    @property
    def packet_bytes(self) -> int:
        return _ENVELOPE_BYTES + len(self.topic.encode()) + len(self.payload)


class Line(Protocol):
    """What lies between a program and the broker, where that takes time."""

    @property
    def is_down(self) -> bool:
        """Whether nothing crosses."""
        ...

    def carried_up(self, count: int) -> bool:
        """Whether the message of `count` bytes that stands first has reached the broker by now."""
        ...

    def carried_down(self, count: int) -> bool:
        """Whether the message of `count` bytes that stands first has reached the program by now."""
        ...

    def interrupt(self) -> None:
        """What was on its way is lost, and begins anew."""
        ...


class BusLink:
    """A program's end; made by `InMemoryBroker.link`, which moves what lies here.

    Attributes:
        events: towards the program.
        outbox: handed over by the program and not yet with the broker, by token, in order.
        acks: tokens of messages that the program has taken.
        was_told: that there is no broker; it is said once.
        line: what messages cross; None: they cross at once.
    """

    def __init__(
        self, settings: LinkSettings, tokens: itertools.count[int], now_s: Callable[[], float], line: Line | None = None
    ) -> None:
        self.events: SimpleQueue[LinkEvent] = SimpleQueue()
        self.settings = settings
        self.is_up = self.is_closed = self.was_told = False
        self.outbox: dict[int, Message] = {}
        self.acks: list[int] = []
        self.line = line
        self._tokens = tokens
        self._now_s = now_s

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> int:
        expires_at_s = math.inf if expiry_s is None else self._now_s() + expiry_s
        token = next(self._tokens)
        self.outbox[token] = Message(check_topic(topic), payload, retain, expires_at_s)
        return token

    def ack(self, arrived: Arrived) -> None:
        self.acks.append(arrived.token)

    def close(self) -> None:
        self.is_closed = True
