"""Payloads on their way to the server, from the first publish to the receipt.

The bytes lie in the store; here is only how often and when they went out. A payload is published again when the broker
has had all of it and no receipt came: at once after a new connection, the device's or the server's, else after a wait
that doubles. What the link itself still holds it sends again by itself. A payload is cut to the packets that the broker
takes, and never again into larger ones: the server joins parts by their number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from edge_agent.round.events import Send
from fd_protocol import codec, parts
from fd_protocol.messages import MAX_PART_BYTES
from fd_runtime.links.link import Link, packet_bytes

_PATIENCE_MIN_MS = 30_000
_PATIENCE_MAX_MS = 600_000
_ENVELOPE_BYTES = 256
"""A part's own, at most: its round, kind, digest and numbers."""


@dataclass(slots=True)
class _Flight:
    """One payload: publishes that the broker has not confirmed, when it went out last, and how often, how cut."""

    unconfirmed: set[int] = field(default_factory=set)
    posted_at_ms: int = 0
    posts: int = 0
    part_bytes: int = MAX_PART_BYTES

    def is_overdue(self, now_ms: int) -> bool:
        patience_ms = min(_PATIENCE_MAX_MS, _PATIENCE_MIN_MS << min(max(self.posts - 1, 0), 10))
        return not self.unconfirmed and now_ms >= self.posted_at_ms + patience_ms


class Outbox:
    """What has been published and not been receipted."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._flights: dict[Send, _Flight] = {}
        self._max_packet_bytes: int | None = None

    def fit(self, max_packet_bytes: int) -> None:
        """From now on cut to what the broker takes."""
        self._max_packet_bytes = max_packet_bytes

    def post(
        self,
        send: Send,
        payload: bytes,
        topic: str,
        now_ms: int,
        only: Collection[int] = (),
        *,
        expires_at_ms: int | None = None,
    ) -> None:
        """Publish `payload` in parts of at most 60000 bytes; all of them, or those with an index in `only`.

        Raises:
            InvalidValueError: the broker's packets are too small for it.
        """
        left_ms = None if expires_at_ms is None else expires_at_ms - now_ms
        if left_ms is not None and left_ms <= 0:
            return
        flight = self._flights.setdefault(send, _Flight())
        flight.part_bytes = min(flight.part_bytes, self._part_bytes(topic))
        expiry_s = None if left_ms is None else -(-left_ms // 1000)
        for part in parts.split(payload, send.round, send.kind, part_bytes=flight.part_bytes):
            if not only or part.index in only:
                flight.unconfirmed.add(self._link.publish(topic, codec.encode(part), expiry_s=expiry_s))
        flight.posted_at_ms = now_ms
        flight.posts += 1

    def cut_anew(self, send: Send, topic: str) -> bool:
        """Forget parts that are too large for the broker; return False where smaller ones are of no use."""
        flight = self._flights[send]
        if flight.part_bytes <= self._part_bytes(topic):
            return False
        flight.unconfirmed.clear()
        return True

    def _part_bytes(self, topic: str) -> int:
        if self._max_packet_bytes is None:
            return MAX_PART_BYTES
        return min(MAX_PART_BYTES, self._max_packet_bytes - packet_bytes(topic, _ENVELOPE_BYTES))

    def confirm(self, token: int) -> None:
        """The broker has one publish."""
        for flight in self._flights.values():
            flight.unconfirmed.discard(token)

    def owner(self, token: int) -> Send | None:
        """Return what the publish `token` was part of."""
        return next((send for send, flight in self._flights.items() if token in flight.unconfirmed), None)

    def unanswered(self) -> list[Send]:
        """Return what the broker has had all of, yet nobody has receipted."""
        return [send for send, flight in self._flights.items() if not flight.unconfirmed]

    def overdue(self, now_ms: int) -> list[Send]:
        """Return what has been unanswered for too long."""
        return [send for send, flight in self._flights.items() if flight.is_overdue(now_ms)]

    def keep(self, sends: Sequence[Send]) -> None:
        """Forget everything but `sends`."""
        self._flights = {send: flight for send, flight in self._flights.items() if send in sends}
