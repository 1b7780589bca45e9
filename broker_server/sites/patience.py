"""How long an HTTP server waits for a peer, and how many connections one may have: uvicorn says for ever, and all.

    request not complete after 10 s                      the connection ends
    answer not taken, not even a buffer of it, in 120 s  the connection ends
    more connections of one peer than its places         the newest end at once, unanswered
    a request with two lengths                           400, and the connection ends: a proxy that goes by the other
                                                         one would hand on the request inside it (RFC 9112, section 6.1)

A peer is a certificate by its common name, or else an address. Who comes from an address of `free`, as a proxy that has
many people behind it or a browser on this machine, has as many connections as there are.

What is deliberately absent: TLS handshakes, which asyncio ends after 60 s, and requests a minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_CHECKS = 4
"""In the time that a request may take."""
LOOPBACK = ("127.0.0.1", "::1", "")


@dataclass(slots=True)
class Patience:
    """What one server bears. Its connections are counted here, so each server has its own.

    Attributes:
        request_s: from the connection, or the last answer, to the end of a request.
        answer_s: in which a peer takes a buffer of an answer.
        places: connections of one peer.
        free: whether the peer at an address has as many as it likes.
    """

    request_s: float = 10.0
    answer_s: float = 120.0
    places: int = 16
    free: Callable[[str], bool] = lambda address: address in LOOPBACK
    _taken: Counter[str] = field(default_factory=Counter)

    def enter(self, peer: str) -> bool:
        """Whether there is a place for one more connection of `peer`; it is taken, either way."""
        self._taken[peer] += 1
        return self._taken[peer] <= self.places

    def leave(self, peer: str) -> None:
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]

    def protocol(self, base: type[PatientProtocol] | None = None) -> type[asyncio.Protocol]:
        """Return the protocol for `uvicorn.Config(http=...)`, of a server of its own; `base` may do more."""

        class Patient(base or PatientProtocol):  # type: ignore[misc]
            patience = self

        return Patient


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, with a look at itself now and then."""

    patience: Patience

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app: Any = _with_one_length(self.app)
        self._peer = ""
        self._check: asyncio.TimerHandle | None = None
        self._asked_s = self._taken_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        name = _common_name(transport)
        self._peer = name or ("" if self.patience.free(address) else address)
        self._asked_s = self._taken_s = self.loop.time()
        if self._peer and not self.patience.enter(self._peer):
            transport.abort()
            return
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        if self._peer:
            self.patience.leave(self._peer)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._asked_s = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._taken_s = self.loop.time()
        super().resume_writing()

    def _look_later(self) -> None:
        self._check = self.loop.call_later(self.patience.request_s / _CHECKS, self._look)

    def _look(self) -> None:
        now_s, patience = self.loop.time(), self.patience
        is_asking = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if not self.flow.write_paused:
            self._taken_s = now_s
        if not is_asking:
            self._asked_s = now_s
        if now_s - self._asked_s >= patience.request_s or now_s - self._taken_s >= patience.answer_s:
            self.transport.abort()
        else:
            self._look_later()


def _with_one_length(app: Any) -> Any:
    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        names = {name for name, _ in scope.get("headers", ())}
        if not {b"content-length", b"transfer-encoding"} <= names:
            await app(scope, receive, send)
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return guarded


def _common_name(transport: asyncio.Transport) -> str:
    """Return the name in the peer's certificate, which TLS has verified; empty where it has none."""
    certificate = transport.get_extra_info("peercert") or {}
    for relative in certificate.get("subject", ()):
        for kind, value in relative:
            if kind == "commonName":
                return f"certificate {value}"
    return ""
