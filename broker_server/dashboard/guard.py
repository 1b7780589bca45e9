"""What every request passes: is it for us, who asks, may they; and what every answer carries.

    host        a name that we were told is ours, or 421: another site's name that leads here is not
    visitor     session cookie, bearer token, a trusted proxy's header, or an open loopback
    entry       without a role only the log-in, the style and the two health checks are answered
    headers     no script, style or frame but our own; nothing kept in a cache

A loopback is not open to what a proxy forwards: a request with a proxy's headers must log in. A trusted proxy logs its
users in by itself: who comes from it without a name gets no form.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_server.dashboard.access import FormTokens, Role, Sessions, Throttle, Tokens, Visitor
from broker_server.dashboard.settings import DashboardSettings
from fd_protocol.identity import MAX_TEXT_CHARACTERS

OPEN_PATHS = ("/healthz", "/readyz", "/login")
STATIC = "/static/"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that says who may what; one per process."""

    settings: DashboardSettings
    tokens: Tokens = Tokens()
    clock: Callable[[], float] = time.monotonic
    sessions: Sessions = field(default_factory=lambda: Sessions(os.urandom))
    throttle: Throttle = field(default_factory=Throttle)
    forms: FormTokens = field(default_factory=lambda: FormTokens(os.urandom(32)))

    @property
    def session_cookie(self) -> str:
        """The prefix makes browsers refuse one that another host, or a page without TLS, has set."""
        return "__Host-fedistill" if self.settings.is_secure else "fedistill"

    @property
    def visit_cookie(self) -> str:
        """What the form of the log-in is bound to."""
        return f"{self.session_cookie}-visit"

    @property
    def has_login(self) -> bool:
        return self.tokens != Tokens()

    def visitor(self, headers: Headers, address: str) -> Visitor:
        """Return who asks."""
        return self._in_session(headers) or self._by_proxy(headers, address) or self._by_bearer(headers, address)

    def set_cookie(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, httponly=True, samesite="strict", secure=self.settings.is_secure, path="/")

    def _in_session(self, headers: Headers) -> Visitor | None:
        secret = cookies(headers).get(self.session_cookie, "")
        return self.sessions.visitor(secret, self.clock()) if secret else None

    def _by_proxy(self, headers: Headers, address: str) -> Visitor | None:
        proxy = self.settings.proxy
        if proxy is None or not proxy.is_trusted(address):
            return None
        names = headers.getlist(proxy.user_header)
        if len(names) != 1 or not 0 < len(names[0]) <= MAX_TEXT_CHARACTERS or not names[0].isprintable():
            return None
        role = Role.OPERATOR if names[0] in proxy.operators else Role.VIEWER
        return Visitor(names[0], role, f"proxy:{names[0]}")

    def _by_bearer(self, headers: Headers, address: str) -> Visitor:
        """A program's token, as Prometheus sends it, lets it look. It cannot post: its forms are bound to nothing."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and not self.throttle.wait_s(address, self.clock()):
            if self.tokens.role_of(token.strip()) is not None:
                return Visitor("program", Role.VIEWER)
            self.throttle.failed(address, self.clock())
        if self.settings.is_open and not any(name in headers for name in _FORWARDED):
            return Visitor("", Role.VIEWER)
        return Visitor()


class Guard:
    """ASGI middleware around the whole application; puts the `Visitor` into `scope["visitor"]`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(send, scope["path"], is_secure=self._access.settings.tls is not None)
        answer = self._refusal(scope) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if host_name(headers.get("host", "")) not in self._access.settings.hosts:
            return PlainTextResponse("this name is not in allowed_hosts\n", 421)
        client = scope.get("client") or ("", 0)
        visitor = self._access.visitor(headers, client[0])
        scope["visitor"] = visitor
        path: str = scope["path"]
        if visitor.may_look or path in OPEN_PATHS or path.startswith(STATIC):
            return None
        if self._access.has_login and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse("log in first\n", 401, {"www-authenticate": "Bearer"})


def cookies(headers: Headers) -> dict[str, str]:
    """Return the cookies of a request; none where they cannot be read."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _with_headers(send: Send, path: str, *, is_secure: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            if not path.startswith(STATIC):
                headers["cache-control"] = "no-store"
            if is_secure:
                headers["strict-transport-security"] = "max-age=31536000"
        await send(message)

    return guarded
