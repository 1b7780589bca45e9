"""Who asks, and what they may: roles, sessions, tokens of forms, and how often one may try to log in.

    who                                  role
    anybody on an open loopback          viewer
    whoever knows the viewer's token     viewer
    a user whom a trusted proxy names    viewer; operator where the settings say so
    whoever knows the operator's token   operator

Sessions live in this process and end with it, after `SESSION_S`, or at the log-out. The clock is an argument.
A form's token is an HMAC of the session or user that the form was made for: no other site can know it.

What is deliberately absent: HTTP.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256

SESSION_S = 12 * 3600.0
_SESSIONS = 1000
MIN_TOKEN_CHARACTERS = 20
_TRIES, _TRY_WINDOW_S, _TRIED = 5, 300.0, 10_000


class Role(str, Enum):
    """What somebody may do here."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `role` is None for somebody who must log in first; `binding` is what their forms are bound to."""

    name: str = ""
    role: Role | None = None
    binding: str = ""

    @property
    def may_look(self) -> bool:
        return self.role is not None

    @property
    def may_command(self) -> bool:
        return self.role is Role.OPERATOR


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that people may log in with; None = nobody can in that role."""

    viewer: str | None = None
    operator: str | None = None

    def __post_init__(self) -> None:
        for token in (self.viewer, self.operator):
            if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
                raise InvalidValueError(f"a token has at least {MIN_TOKEN_CHARACTERS} characters")
        if self.viewer is not None and self.viewer == self.operator:
            raise InvalidValueError("viewers and operators need different tokens")

    def role_of(self, token: str) -> Role | None:
        """Return what `token` lets one do; takes as long whatever is wrong with it."""
        is_viewer, is_operator = _is_same(token, self.viewer), _is_same(token, self.operator)
        return Role.OPERATOR if is_operator else Role.VIEWER if is_viewer else None


@dataclass(frozen=True, slots=True)
class _Session:
    visitor: Visitor
    until_s: float


@dataclass(slots=True)
class Sessions:
    """Who is logged in. `entropy` gives random bytes."""

    entropy: Callable[[int], bytes]
    _open: OrderedDict[str, _Session] = field(default_factory=OrderedDict)

    def begin(self, name: str, role: Role, now_s: float) -> str:
        """Return the secret name of a new session; where there are too many the oldest ends."""
        secret = self.entropy(32).hex()
        self._open[secret] = _Session(Visitor(name, role, secret), now_s + SESSION_S)
        while len(self._open) > _SESSIONS:
            self._open.popitem(last=False)
        return secret

    def visitor(self, secret: str, now_s: float) -> Visitor | None:
        """Return whose session it is, if it still is one."""
        session = self._open.get(secret)
        if session is None:
            return None
        if now_s >= session.until_s:
            del self._open[secret]
            return None
        return session.visitor

    def end(self, secret: str) -> None:
        self._open.pop(secret, None)


@dataclass(slots=True)
class Throttle:
    """Counts failed log-ins by address; a few in five minutes, then one waits."""

    _failures: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def wait_s(self, address: str, now_s: float) -> float:
        """Return how long `address` must wait before its next try."""
        recent = [at_s for at_s in self._failures.get(address, []) if now_s - at_s < _TRY_WINDOW_S]
        return 0.0 if len(recent) < _TRIES else recent[-_TRIES] + _TRY_WINDOW_S - now_s

    def failed(self, address: str, now_s: float) -> None:
        failures = self._failures.setdefault(address, [])
        failures[:] = [*failures[-_TRIES + 1 :], now_s]
        self._failures.move_to_end(address)
        while len(self._failures) > _TRIED:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        self._failures.pop(address, None)


@dataclass(frozen=True, slots=True)
class FormTokens:
    """Makes and knows the tokens of forms; `key` is random and dies with the process."""

    key: bytes = field(repr=False)

    def of(self, binding: str) -> str:
        return hmac.new(self.key, binding.encode(), "sha256").hexdigest()

    def is_valid(self, token: str, binding: str) -> bool:
        return bool(binding) and hmac.compare_digest(self.of(binding).encode(), token.encode())


def _is_same(told: str, known: str | None) -> bool:
    """Digests are compared: equal in length, and what is told is no guide to what is known."""
    return hmac.compare_digest(sha256(told.encode()), sha256((known or "").encode())) and known is not None
