"""HTTP on the sockets of this machine: one thread a connection, a bound on everything, a check before any route.

    connection --host, origin--> is it for us? --token (TCP)--> who asks? --length, type--> body --> route --> answer

What a stranger on this machine, or a web page in its browser, may try, and what stands against it:

- a page of another site: its requests carry an Origin or a Sec-Fetch-Site that is not ours, and no token. There are no
  cookies, so a browser adds nothing by itself; what a form can post is no type that is taken here;
- DNS rebinding: a name that leads here is not in the Host header's list;
- a slow client: a request is read, and an answer taken, within `patience_s` altogether, or the connection is cut;
- many or long requests: connections and bodies are counted before anything is read;
- another user of this machine: the Unix socket is closed to them, TCP asks for the token.

What is deliberately absent: chunked bodies, pipelining of bodies, TLS, cookies, CORS.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, ThreadingMixIn
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from edge_agent.api.addresses import LOOPBACK
from fd_protocol.errors import FedistillError

_POLL_S = 0.25
_FAREWELL_S = 1.0
_LINGER_S = 1.0
_DIGITS = 16
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logging.getLogger("edge-agent")


class ApiError(FedistillError):
    """A request that is not answered as its sender hoped; says why, in a line."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        self.status = status
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Request:
    """What a route needs to know.

    Attributes:
        query: last value of each name.
        content_type: without its parameters, in lower case.
        body: whole.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def of(cls, item: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
        """The answer that is `item` as JSON.

        Raises:
            ValueError: a number in it is not finite.
        """
        return cls(json.dumps(item, ensure_ascii=False, allow_nan=False).encode(), status=status)


Route = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of requests.

    Attributes:
        token: that a request must bring; None: whoever can connect may ask.
        hosts: what the Host header may say.
        open_paths: answered without a token: what holds nothing of this device.
        body_bytes: most of a body.
        connections: most at once.
        patience_s: for reading a request, and for an answer to be taken.
    """

    token: str | None
    hosts: tuple[str, ...]
    open_paths: frozenset[str] = frozenset()
    body_bytes: int = 8_000_000
    connections: int = 16
    patience_s: float = 30.0


class ApiServer:
    """Serves a route on a listening socket, which becomes its own.

    Args:
        listening: of `addresses`.
        route: answers requests that have passed; called by many threads.
        terms: of requests.
    """

    def __init__(self, listening: socket.socket, route: Route, terms: Terms) -> None:
        self._server = _Server(listening, route, terms)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _POLL_S}, name="api", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> Any:
        return self._server.socket.getsockname()

    def close(self) -> None:
        """Take no more requests and cut all connections."""
        self._server.shutdown()
        self._server.cut_all()
        self._server.server_close()
        self._thread.join(_FAREWELL_S)


class _Server(ThreadingMixIn, BaseServer):
    """`BaseServer` on a socket that listens already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, route: Route, terms: Terms) -> None:
        super().__init__(listening.getsockname(), _Handler)
        self.socket, self.route, self.terms = listening, route, terms
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, float | None] = {}

    # What BaseServer asks of a socket.

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def server_close(self) -> None:
        self.socket.close()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, once the other side had time to read the answer: closing on unread bytes resets it."""
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            end_s = time.monotonic() + _LINGER_S
            while (left_s := end_s - time.monotonic()) > 0:
                request.settimeout(left_s)
                if not request.recv(1 << 16):
                    break
        with self._lock:
            self._deadlines.pop(request, None)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        log.debug("api: a connection ended", exc_info=True)  # noqa: LOG014 - called where one is handled

    # Bounds.

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the base's signature
        """Count a connection; one too many is told so and closed."""
        with self._lock:
            if len(self._deadlines) < self.terms.connections:
                self._deadlines[request] = time.monotonic() + self.terms.patience_s
                return True
        request.setblocking(False)
        with contextlib.suppress(OSError):
            request.send(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            request.shutdown(socket.SHUT_RDWR)  # no lingering: this is the thread that accepts
        return False

    def allow(self, connection: socket.socket, seconds: float | None) -> None:
        """Give a connection so long from now on; None: as long as we ourselves take."""
        with self._lock:
            if connection in self._deadlines:
                self._deadlines[connection] = None if seconds is None else time.monotonic() + seconds

    def service_actions(self) -> None:
        """Cut whoever is overdue. The thread that reads from it sees an end, as if the other side had hung up."""
        now_s = time.monotonic()
        with self._lock:
            overdue = [
                one for one, deadline_s in self._deadlines.items() if deadline_s is not None and deadline_s < now_s
            ]
        for connection in overdue:
            _cut(connection)

    def cut_all(self) -> None:
        with self._lock:
            connections = list(self._deadlines)
        for connection in connections:
            _cut(connection)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "edge-agent"
    sys_version = ""
    wbufsize = 1 << 16  # an answer is one write

    @property
    def _server(self) -> _Server:
        return cast("_Server", self.server)

    def handle_one_request(self) -> None:
        self._server.allow(self.connection, self._server.terms.patience_s)
        super().handle_one_request()

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        try:
            request = self._read()
            self._server.allow(self.connection, None)
            response = self._server.route(request)
        except ApiError as error:
            response = _refusal(error.status, str(error))
        except (FedistillError, OSError) as error:
            log.warning("api: %s: %s", self.path, error)
            response = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception:  # a mistake of ours costs the request, not the worker
            log.exception("api: %s", self.path)
            response = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a mistake of edge-agent's; its log says more")
        self._send(response)

    def _read(self) -> Request:
        """Return the request.

        Raises:
            ApiError: it is not for us, has no right to ask, or is too long.
        """
        parts = urlsplit(self.path)
        try:
            is_open = self.command == "GET" and parts.path in self._server.terms.open_paths
            self._check_origin(is_open=is_open)
            if not is_open:
                self._check_token()
            length = self._length()
        except ApiError:
            self.close_connection = True  # its body was not read, so nothing after it can be
            raise
        body = self.rfile.read(length) if length else b""
        if len(body) < length:
            self.close_connection = True
            raise ApiError(HTTPStatus.BAD_REQUEST, "the body ended early")
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Request(self.command, parts.path, dict(parse_qsl(parts.query)), kind, body)

    def _check_origin(self, *, is_open: bool) -> None:
        host, hosts = self.headers.get("Host", ""), self._server.terms.hosts
        if host.lower() not in hosts or len(self.headers.get_all("Host", [])) > 1:
            raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, f"this is {hosts[0]}, not {host[:80]!r}")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{one}" for one in hosts}:
            raise ApiError(HTTPStatus.FORBIDDEN, "pages of other sites have no business here")
        # A link on another page may lead to ours; what that page loads or posts by itself may not.
        if not is_open and self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise ApiError(HTTPStatus.FORBIDDEN, "pages of other sites have no business here")

    def _check_token(self) -> None:
        token = self._server.terms.token
        if token is None:
            return
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise ApiError(HTTPStatus.UNAUTHORIZED, "send the token: Authorization: Bearer ...")

    def _length(self) -> int:
        if self.headers.get("Transfer-Encoding") is not None:
            raise ApiError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length; bodies in chunks are not read")
        text = self.headers.get("Content-Length", "0")
        is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
        if not is_number or len(self.headers.get_all("Content-Length", [])) > 1:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
        if int(text) > self._server.terms.body_bytes:
            most = self._server.terms.body_bytes
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most} bytes")
        return int(text)

    def _send(self, response: Response) -> None:
        self._server.allow(self.connection, self._server.terms.patience_s)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if response.status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base finds wrong with a request, in our words and not its HTML."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(_refusal(status, message or status.phrase))

    def address_string(self) -> str:
        return LOOPBACK

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's signature
        log.debug("api: " + format, *args)  # noqa: G003 - the base's format


def _refusal(status: HTTPStatus, problem: str) -> Response:
    return Response.of({"error": problem}, status)
