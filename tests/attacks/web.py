"""Attacks on what speaks HTTP: the site of packages, by a device; the dashboard, by another site, a thief, a forger.

Both are the real applications in a real uvicorn on loopback, in a thread; times are short, so that a row is.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.dashboard.access import Throttle, Tokens
from broker_server.dashboard.settings import DashboardSettings, ProxySettings, ServingFiles
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from broker_server.orders import Spool
from broker_server.sites.packages import make_app
from broker_server.sites.patience import Patience
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import DeviceState
from fd_runtime.links.link import TlsFiles
from tests.attacks.ground import Seen, Weakening
from tests.attacks.row import Attack
from tests.broker_server.dashboard.stage import OPERATOR, VIEWER, Stage, form_of
from tests.broker_server.world import TOPICS
from tests.support.brokers import now
from tests.support.patience import PATIENCE_S, wait_until

PACKAGE = bytes(range(256)) * 80_000
DIGEST = sha256(PACKAGE).hex()
SECRET = b"nobody's but the server's"
MOST = 24
"""Connections that these servers have in all."""


@contextmanager
def running(app: Any, **terms: Any) -> Iterator[int]:
    """Run an application in uvicorn, in a thread; yields its port."""
    port = free_port()
    shared = {
        "server_header": False,
        "log_config": None,
        "log_level": "critical",
        "limit_concurrency": MOST,
        "ws": "none",
    }
    server = uvicorn.Server(
        uvicorn.Config(app, host=LOOPBACK, port=port, timeout_graceful_shutdown=1, **shared | terms)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started, f"nobody serves port {port}"
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@dataclass(slots=True)
class Site:
    """The site of packages over TLS, and devices with certificates; `is_weak` as on a `Ground`."""

    folder: Path
    port: int
    authority: Authority
    is_weak: bool = False

    def socket(self, name: str | None = "mallory", *, small: bool = False) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.authority.root_path)
        if name is not None:
            files = self.files(name)
            context.load_cert_chain(files.certificate, files.key)
        plain = socket.socket()
        if small:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(5)
        plain.connect((LOOPBACK, self.port))
        return context.wrap_socket(plain, server_hostname=LOOPBACK)

    def files(self, name: str) -> TlsFiles:
        out = self.folder / name
        files = TlsFiles(out / "ca.pem", out / f"{name}.pem", out / f"{name}.key")
        return files if files.key.exists() else self.authority.issue(Identity(name, Role.DEVICE), out, now=now())

    def ask(self, request: bytes, name: str | None = "mallory") -> bytes:
        with self.socket(name) as one:
            return exchange(one, request)

    def is_open_to(self, name: str = "bystander") -> bool:
        return self.ask(get(f"/v1/blobs/{DIGEST}", "Range: bytes=0-3"), name).startswith(b"HTTP/1.1 206")


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode()


def exchange(one: socket.socket, request: bytes) -> bytes:
    """Send, and read to the end."""
    came = b""
    with contextlib.suppress(OSError):
        one.sendall(request)
        while data := one.recv(1 << 16):
            came += data
    return came


def status(answer: bytes) -> str:
    return answer[9:12].decode() or "hung up"


@contextmanager
def site(folder: Path, weakening: Weakening | None = None, attack: str = "") -> Iterator[Site]:
    """Start the site; a control takes away what `attack` is kept off by."""
    authority = Authority.create(folder / "ca", fleet="demo", now=now())
    own = authority.issue(Identity("packages", Role.BROKER, (LOOPBACK,)), folder / "own", now=now())
    web = folder / "web"
    (web / "v1" / "blobs").mkdir(parents=True)
    (web / "v1" / "blobs" / DIGEST).write_bytes(PACKAGE)
    (folder / "secret").write_bytes(SECRET)
    is_weak = weakening is not None
    naive = is_weak and attack in (TRAVERSAL, RANGES)
    terms: dict[str, Any] = {
        "http": Patience(request_s=0.6, answer_s=0.6, places=8).protocol(),
        "ssl_certfile": own.certificate,
        "ssl_keyfile": own.key,
        "ssl_ca_certs": str(authority.root_path),
        "ssl_cert_reqs": ssl.CERT_NONE if is_weak and attack == NOBODY else ssl.CERT_REQUIRED,
        "proxy_headers": False,
    }
    if is_weak and attack in (SLOW, GREEDY, MANY):
        terms["http"] = "h11"
    if is_weak and attack == HEADERS:
        terms["h11_max_incomplete_event_size"] = 10_000_000
    with running(_naive(web) if naive else make_app(web), **terms) as port:
        yield Site(folder, port, authority, is_weak)


def _naive(web: Path) -> Starlette:
    def serve(request: Request) -> FileResponse:
        return FileResponse(web / request.path_params["path"])

    return Starlette(routes=[Route("/{path:path}", serve)])


NOBODY, TRAVERSAL, SLOW, GREEDY, MANY, HEADERS, RANGES = (
    "package without a certificate",
    "package by another path",
    "request without end",
    "answer never read",
    "many connections of one device",
    "huge headers",
    "many ranges",
)


def no_certificate(stage: Site) -> Seen:
    try:
        answer = stage.ask(get(f"/v1/blobs/{DIGEST}", "Range: bytes=0-99"), None)
    except OSError:
        answer = b""
    return Seen(status(answer), got_through=PACKAGE[:100] in answer)


def traversal(stage: Site) -> Seen:
    paths = (
        "/../secret",
        "/v1/blobs/../../../secret",
        "/v1/blobs/..%2f..%2f..%2fsecret",
        "/v1/blobs/%2e%2e/%2e%2e/%2e%2e/secret",
        "/v1/blobs/....//....//....//secret",
        "/%2e%2e/secret",
        f"//{stage.folder}/secret",
        f"/{str(stage.folder / 'secret').replace('/', '%2f')}",
        f"/v1/blobs/{DIGEST}/../../../../secret",
        "/v1/blobs/..\\..\\..\\secret",
    )
    answers = [stage.ask(get(path)) for path in paths]
    return Seen(" ".join(sorted({status(one) for one in answers})), got_through=any(SECRET in one for one in answers))


def request_without_end(stage: Site) -> Seen:
    """Say half a request on as many connections as there are, each of them by a device of its own."""
    with ExitStack() as stack:
        opened = [stack.enter_context(stage.socket(f"slow-{number % 4}")) for number in range(MOST)]
        for one in opened:
            with contextlib.suppress(OSError):
                one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        time.sleep(1.2)
        return _served(stage, "hung up")


def answer_never_read(stage: Site) -> Seen:
    with ExitStack() as stack:
        for number in range(MOST):
            one = stack.enter_context(stage.socket(f"slow-{number % 4}", small=True))
            with contextlib.suppress(OSError):
                one.sendall(get(f"/v1/blobs/{DIGEST}"))
        time.sleep(2.0)
        return _served(stage, "hung up")


def many_connections(stage: Site) -> Seen:
    """Be one device, on every connection that there is, and never late."""
    with ExitStack() as stack:
        opened = []
        for _ in range(MOST):
            with contextlib.suppress(OSError):
                opened.append(stack.enter_context(stage.socket()))
        time.sleep(0.2)
        return _served(stage, "hung up beyond 8")


def _served(stage: Site, says: str) -> Seen:
    is_served = stage.is_open_to()
    return Seen(says if is_served else "nobody is served", got_through=not is_served)


def huge_headers(stage: Site) -> Seen:
    answer = stage.ask(get(f"/v1/blobs/{DIGEST}", "Range: bytes=0-3", "X-Big: " + "a" * 300_000))
    return Seen(status(answer), got_through=status(answer) == "206")


def ranges(stage: Site) -> Seen:
    wanted = ",".join(f"{2 * number}-{2 * number}" for number in range(100))
    path = f"/v1/blobs/{DIGEST}"
    answer = stage.ask(get(path, f"Range: bytes={wanted}"))
    return Seen(status(answer), got_through=status(answer) == "206")


# The dashboard.


@dataclass(slots=True)
class Board:
    """The dashboard's application; a control changes `stage` or does the attack with what its victim has."""

    folder: Path
    is_weak: bool = False

    def stage(self, **changes: Any) -> Stage:
        return Stage(self.folder, **{"tokens": Tokens(viewer=VIEWER, operator=OPERATOR), **changes})

    def proxied(self) -> Stage:
        proxy = ProxySettings(("10.0.0.7",), operators=("ann@example.org",))
        return self.stage(settings=DashboardSettings(proxy=proxy), tokens=Tokens())


def _ordered(stage: Stage) -> bool:
    return bool(list(Spool(stage.spool).waiting()))


def forged_form(board: Board) -> Seen:
    """Let an operator's browser post a form of another site; it sends the cookie, if it does."""
    stage = board.stage()
    operator = stage.log_in()
    form, answers = form_of(operator.get("/")), set()
    posts: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"command": "pause"}, {}),
        ({"command": "pause", "form": "0" * 64}, {}),
        ({"command": "pause", "form": form_of(stage.log_in().get("/"))}, {}),
        ({"command": "pause", "form": form}, {"origin": "https://evil.example"}),
        ({"command": "pause", "form": form}, {"origin": "null"}),
        ({"command": "pause", "form": form}, {"sec-fetch-site": "cross-site"}),
    ]
    if board.is_weak:
        posts = [({"command": "pause", "form": form}, {})]
    for data, headers in posts:
        answers.add(str(operator.post("/orders", data=data, headers=headers).status_code))
    return Seen(" ".join(sorted(answers)), got_through=_ordered(stage))


def stolen_cookie(board: Board) -> Seen:
    """Read the cookie by a script, over plain HTTP, from another site, or set one for the victim."""
    files = _settings(board)
    stage = board.stage(settings=files)
    browser = stage.browser("https://fleet.example" if not board.is_weak else "http://localhost", address="10.0.0.9")
    page = browser.get("/login")
    answer = browser.post("/login", data={"form": form_of(page), "token": VIEWER})
    cookie = answer.headers["set-cookie"]
    flags = [flag for flag in ("__Host-", "HttpOnly", "SameSite=strict", "Secure") if flag in cookie]
    return Seen(", ".join(flags), got_through=len(flags) < 4)


def _settings(board: Board) -> DashboardSettings:
    if board.is_weak:
        return DashboardSettings()
    return DashboardSettings(
        host="10.0.0.1",
        viewer_token_file=Path("t"),
        tls=ServingFiles(Path("c"), Path("k")),
        allowed_hosts=("fleet.example",),
    )


def forged_user(board: Board) -> Seen:
    """Say the header by which a proxy names its users: not being the proxy, twice, misspelled, through it."""
    stage = board.proxied()
    name, answers = "ann@example.org", set()
    address = "10.0.0.7" if board.is_weak else "10.0.0.8"
    tries: list[tuple[str, list[tuple[str, str]]]] = [
        (address, [("x-forwarded-email", name)]),
        ("127.0.0.1", [("x-forwarded-email", name)]),
        ("10.0.0.8", [("x-forwarded-email", name), ("x-forwarded-for", "10.0.0.7")]),
        ("10.0.0.7", [("x-forwarded-email", "bob@example.org"), ("x-forwarded-email", name)]),
        ("10.0.0.7", [("x_forwarded_email", name)]),
        ("10.0.0.7", [("x-forwarded-email", "")]),
    ]
    for peer, headers in tries:
        answers.add(str(stage.browser(address=peer, accept="*/*").get("/", headers=headers).status_code))
    return Seen(" ".join(sorted(answers)), got_through="200" in answers)


def smuggled_request(board: Board) -> Seen:
    """Send a request with two lengths: what a proxy takes for its body, with the user's header in it, is a request."""
    stage = board.proxied()
    hidden = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Email: ann@example.org\r\n\r\n"
    body = b"0\r\n\r\n" + hidden
    lengths = b"Transfer-Encoding: chunked\r\n" + (b"" if board.is_weak else b"Content-Length: %d\r\n" % len(body))
    request = b"POST /login HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n" + body
    with (
        running(stage.app, http=Patience(request_s=1.0).protocol()) as port,
        socket.create_connection((LOOPBACK, port), timeout=5) as one,
    ):
        answer = exchange(one, request)
    count = answer.count(b"HTTP/1.1 ")
    return Seen(f"{status(answer)}, {count} answer", got_through=count > 1)


def guessed_token(board: Board) -> Seen:
    """Try tokens, from one address, with another `X-Forwarded-For` each time."""
    stage = board.stage()
    if board.is_weak:
        object.__setattr__(stage.access, "throttle", _Forgiving())
    browser = stage.browser()
    form, answers = form_of(browser.get("/login")), []
    for number in range(30):
        headers = {"x-forwarded-for": f"198.51.100.{number}"}
        answer = browser.post("/login", data={"form": form, "token": f"wrong-{number}"}, headers=headers)
        answers.append(answer.status_code)
    return Seen(f"{answers.count(403)} tries, then 429", got_through=429 not in answers)


class _Forgiving(Throttle):
    def wait_s(self, _address: str, _now_s: float) -> float:
        return 0.0


def rebound_name(board: Board) -> Seen:
    """Let a browser come by a name of one's own that leads to loopback."""
    stage = board.stage(tokens=Tokens(operator=OPERATOR))
    names = ("http://evil.example", "http://localhost.evil.example", "http://127.0.0.1.nip.example")
    if board.is_weak:
        names = ("http://localhost",)
    answers = {str(stage.browser(name).get("/").status_code) for name in names}
    return Seen(" ".join(sorted(answers)), got_through="200" in answers)


def script_in_a_text(board: Board) -> Seen:
    """Be a device that has a script for a problem, and for a program."""
    stage = board.stage(tokens=Tokens(operator=OPERATOR))
    script = "<script>alert(1)</script>"
    birth = DeviceState(1, online=True, agent=script, problem=f'"><img src=x onerror=alert(1)>{script}')
    stage.world.arrive(TOPICS.state("mallory"), codec.encode(birth))
    stage.world.settle()
    if board.is_weak:
        _site_of(stage)._environment.autoescape = False
    browser, found, policies = stage.browser(), False, set()
    for path in ("/", "/devices", "/devices/mallory", "/fleet", "/health", "/metrics"):
        answer = browser.get(path)
        is_page = "text/html" in answer.headers.get("content-type", "")
        found |= is_page and ("<script>alert" in answer.text or "<img src=x" in answer.text)
        policies.add("unsafe" in answer.headers["content-security-policy"])
    return Seen("escaped, and forbidden by the policy" if policies == {False} else "allowed", got_through=found)


def _site_of(stage: Stage) -> Any:
    """The object whose methods are the routes."""
    app: Any = stage.app
    route = next(route for route in app.routes if isinstance(route, Route) and route.path == "/")
    return route.endpoint.__self__


SITE_ROWS = (
    Attack(NOBODY, "fetch a package without one", "hung up", no_certificate, Weakening("`CERT_NONE`")),
    Attack(
        TRAVERSAL,
        "`..`, `%2e`, `//`, absolute paths: 10 ways to a file beside",
        "404",
        traversal,
        Weakening("an application that joins paths"),
    ),
    Attack(
        SLOW,
        "say half a request on every connection that there is",
        "hung up",
        request_without_end,
        Weakening("uvicorn's own protocol"),
    ),
    Attack(
        GREEDY,
        "ask for 20 MB on every connection that there is, and read nothing",
        "hung up",
        answer_never_read,
        Weakening("uvicorn's own protocol"),
    ),
    Attack(
        MANY,
        "be one device on every connection that there is",
        "hung up beyond 8",
        many_connections,
        Weakening("uvicorn's own protocol"),
    ),
    Attack(HEADERS, "a header of 300 kB", "400", huge_headers, Weakening("10 MB of headers")),
    Attack(RANGES, "ask for 100 ranges at once", "416", ranges, Weakening("Starlette's own answer")),
)
BOARD_ROWS = (
    Attack(
        "form from another site",
        "post an order without, with a wrong, with another's token, from elsewhere",
        "403",
        forged_form,
        Weakening("the operator's own form"),
    ),
    Attack(
        "stolen session",
        "read, overhear or set the cookie",
        "__Host-, HttpOnly, SameSite=strict, Secure",
        stolen_cookie,
        Weakening("plain HTTP"),
    ),
    Attack(
        "forged user of the proxy",
        "say its header: from elsewhere, twice, misspelled, empty",
        "401",
        forged_user,
        Weakening("the proxy's address"),
    ),
    Attack(
        "smuggled request",
        "one request of two lengths, with another in it",
        "400, 1 answer",
        smuggled_request,
        Weakening("two requests"),
    ),
    Attack("guessed token", "try 30 tokens", "5 tries, then 429", guessed_token, Weakening("no `Throttle`")),
    Attack(
        "rebound name",
        "come by a name of one's own that leads to loopback",
        "421",
        rebound_name,
        Weakening("`localhost`"),
    ),
    Attack(
        "script in a device's text",
        "be born with `<script>` for a problem",
        "escaped, and forbidden by the policy",
        script_in_a_text,
        Weakening("`autoescape=False`"),
    ),
)
ROWS = (*SITE_ROWS, *BOARD_ROWS)
