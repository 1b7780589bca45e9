"""The web application: routes, pages, the log-in, orders. `make_app` puts it together from its parts.

A GET reads and changes nothing. A POST must carry the token of its form and come from our own page; orders need the
operator's role, and go into the spool with who and role.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from broker_server.core.events import Command
from broker_server.dashboard import metrics, words
from broker_server.dashboard.access import Visitor
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.guard import Access, Guard, cookies
from broker_server.dashboard.pages.audit import audit_page
from broker_server.dashboard.pages.differing import differing_page
from broker_server.dashboard.pages.fleet import ORDERS, device_page, fleet_page
from broker_server.dashboard.pages.history import history_page, round_page
from broker_server.dashboard.pages.now import now_page
from broker_server.dashboard.pages.probes import probes_page
from broker_server.dashboard.pages.refusals import refusals_page
from broker_server.dashboard.pages.releases import releases_page
from broker_server.dashboard.reading import Look, Source
from broker_server.dashboard.watching import TooManyPagesError, Watch
from broker_server.orders import new_order, place_order
from fd_protocol.errors import FedistillError, InvalidValueError

MAX_FORM_BYTES = 4096
PAGES = (
    ("/", "Now"),
    ("/fleet", "Fleet"),
    ("/history", "History"),
    ("/differing", "Differing"),
    ("/refusals", "Refusals"),
    ("/releases", "Releases"),
    ("/probes", "Probes"),
    ("/audit", "Audit"),
)
ORDERS_HERE = frozenset(command.value for command in Command) - {
    Command.PROBES_STAGE.value,
    Command.PROBES_ROTATE.value,
}
"""Orders that name no files of the server: those are for its command line."""
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Site:
    """What the routes work with.

    Attributes:
        source: of what is shown.
        access: who may what.
        spool: folder of orders; None = there are no commands here.
        expiries: tells until when certificates are good.
    """

    source: Source
    access: Access
    spool: Path | None = None
    expiries: Callable[[], tuple[Expiry, ...]] = lambda: ()


def make_app(site: Site) -> Starlette:
    """Return the application; one per process."""
    routes = _Routes(site, Watch(site.source))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(routes.watch.run())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    return Starlette(
        routes=[
            Route("/", routes.now),
            Route("/fleet", routes.fleet),
            Route("/fleet/{device}", routes.device),
            Route("/history", routes.history),
            Route("/rounds/{epoch}/{number:int}", routes.round),
            Route("/differing", routes.differing),
            Route("/refusals", routes.refusals),
            Route("/releases", routes.releases),
            Route("/probes", routes.probes),
            Route("/audit", routes.audit),
            Route("/events", routes.events),
            Route("/metrics", routes.metrics),
            Route("/healthz", routes.healthz),
            Route("/readyz", routes.readyz),
            Route("/login", routes.login, methods=["GET"]),
            Route("/login", routes.log_in, methods=["POST"]),
            Route("/logout", routes.log_out, methods=["POST"]),
            Route("/orders", routes.order, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_FOLDER / "static")),
        ],
        middleware=[Middleware(Guard, access=site.access)],
        exception_handlers={HTTPException: routes.refused, FedistillError: routes.unreadable},
        lifespan=lifespan,
    )


class _Routes:
    """One method a route. Those that read are plain functions: Starlette calls them in a thread of their own."""

    def __init__(self, site: Site, watch: Watch) -> None:
        self._site, self.watch = site, watch
        self._environment = _environment(site)

    # Pages.

    def now(self, request: Request) -> Response:
        with self._site.source.look() as look:
            page = now_page(look, self._site.expiries())
            order = request.query_params.get("order", "")
            answer = look.state.answer_to(order)
            told = {"order": order, "answer": answer.outcome if answer else ""}
            return self._page(request, "now.html", look, page=page, **told)

    def fleet(self, request: Request) -> Response:
        asked = request.query_params
        with self._site.source.look() as look:
            page = fleet_page(look, asked.get("q", ""), asked.get("order", "name"), _whole(asked.get("page")) or 1)
            return self._page(request, "fleet.html", look, page=page, orders=ORDERS)

    def device(self, request: Request) -> Response:
        with self._site.source.look() as look:
            page = device_page(look, request.path_params["device"])
            if page is None:
                raise HTTPException(404, "No device of this name was ever heard of.")
            return self._page(request, "device.html", look, page=page)

    def history(self, request: Request) -> Response:
        with self._site.source.look() as look:
            page = history_page(look, _whole(request.query_params.get("before")))
            return self._page(request, "history.html", look, page=page)

    def round(self, request: Request) -> Response:
        epoch, number = request.path_params["epoch"], request.path_params["number"]
        with self._site.source.look() as look:
            page = round_page(look, _hexadecimal(epoch), number, request.query_params.get("after", ""))
            if page is None:
                raise HTTPException(404, "There is no record of this round.")
            return self._page(request, "round.html", look, page=page)

    def differing(self, request: Request) -> Response:
        with self._site.source.look() as look:
            return self._page(request, "differing.html", look, page=differing_page(look))

    def refusals(self, request: Request) -> Response:
        with self._site.source.look() as look:
            return self._page(request, "refusals.html", look, page=refusals_page(look))

    def releases(self, request: Request) -> Response:
        with self._site.source.look() as look:
            return self._page(request, "releases.html", look, page=releases_page(look))

    def probes(self, request: Request) -> Response:
        with self._site.source.look() as look:
            return self._page(request, "probes.html", look, page=probes_page(look))

    def audit(self, request: Request) -> Response:
        with self._site.source.look() as look:
            return self._page(request, "audit.html", look, page=audit_page(look))

    # For programs.

    async def events(self, request: Request) -> Response:
        """The stream of changes. It ends when its visitor may no longer look."""
        address = request.client.host if request.client else ""
        stream = self.watch.events(lambda: self._site.access.visitor(request.headers, address).may_look)
        try:
            first = await anext(stream)
        except TooManyPagesError:
            return PlainTextResponse("too many open pages\n", 503)

        async def body() -> AsyncIterator[str]:
            async with aclosing(stream):
                yield first
                async for text in stream:
                    yield text

        return StreamingResponse(body(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def metrics(self, _request: Request) -> Response:
        with self._site.source.look() as look:
            text = metrics.exposition(look, self._site.expiries())
            return Response(text, media_type=metrics.CONTENT_TYPE)

    async def healthz(self, _request: Request) -> Response:
        """This process answers; of the server it says nothing."""
        return PlainTextResponse("ok\n")

    def readyz(self, _request: Request) -> Response:
        """The database can be read, and the server runs."""
        try:
            with self._site.source.look() as look:
                number, is_running = look.state.number, look.is_running
        except FedistillError:
            return PlainTextResponse("the database cannot be read\n", 503)
        if is_running is False:
            return PlainTextResponse("the server does not run\n", 503)
        told = "" if is_running else "; whether the server runs cannot be told here"
        return PlainTextResponse(f"ready, round {number}{told}\n")

    # Forms.

    async def login(self, request: Request) -> Response:
        return self._login_form(request, "")

    async def log_in(self, request: Request) -> Response:
        access, address = self._site.access, request.client.host if request.client else ""
        now_s, visit = access.clock(), cookies(request.headers).get(access.visit_cookie, "")
        form = await self._form(request, f"visit:{visit}" if visit else "")
        if wait_s := access.throttle.wait_s(address, now_s):
            response = self._login_form(request, f"Too many tries. Wait {words.span(wait_s)}.", 429)
            response.headers["retry-after"] = str(round(wait_s))
            return response
        role = access.tokens.role_of(form.get("token", ""))
        if role is None:
            access.throttle.failed(address, now_s)
            return self._login_form(request, "This is no token of this federation.", 403)
        access.throttle.succeeded(address)
        response = RedirectResponse("/", 303)
        name = "".join(filter(str.isprintable, form.get("name", ""))).strip()[:64]
        access.set_cookie(response, access.session_cookie, access.sessions.begin(name or role.value, role, now_s))
        return response

    async def log_out(self, request: Request) -> Response:
        access, visitor = self._site.access, _visitor(request)
        await self._form(request, visitor.binding)
        access.sessions.end(visitor.binding)
        response = RedirectResponse("/", 303)
        response.delete_cookie(access.session_cookie, path="/", secure=access.settings.is_secure, httponly=True)
        return response

    async def order(self, request: Request) -> Response:
        """Place an order: the server obeys or refuses, and the page says which."""
        visitor = _visitor(request)
        form = await self._form(request, visitor.binding)
        if not visitor.may_command or self._site.spool is None:
            raise HTTPException(403, "Only an operator gives orders.")
        command, reason = form.get("command", ""), form.get("reason", "").strip()
        if command not in ORDERS_HERE:
            raise HTTPException(400, "No such order.")
        try:
            order = new_order(
                command,
                who=visitor.name,
                role=visitor.role.value if visitor.role else "",
                at_ms=self._site.source.clock(),
                arguments={"reason": reason} if reason else {},
            )
        except InvalidValueError as error:
            raise HTTPException(400, f"The order is refused: {error}.") from error
        await asyncio.to_thread(place_order, self._site.spool, order)
        return RedirectResponse(f"/?order={order.id}", 303)

    async def _form(self, request: Request, binding: str) -> Mapping[str, str]:
        """Return the fields of a form that our own page has sent.

        Raises:
            HTTPException: it is too long, from elsewhere, or its token is not the one of `binding`.
        """
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413, "This form is too long.")
        origin = request.headers.get("origin")
        is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
        if not is_ours or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise HTTPException(403, "This form came from another site.")
        form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if not self._site.access.forms.is_valid(form.get("form", ""), binding):
            raise HTTPException(403, "This form is too old. Load the page again.")
        return form

    def _login_form(self, request: Request, problem: str, status: int = 200) -> Response:
        """The form is bound to a cookie that only this browser has."""
        access = self._site.access
        visit = cookies(request.headers).get(access.visit_cookie) or secrets.token_hex(16)
        form = access.forms.of(f"visit:{visit}")
        response = self._render(request, "login.html", status, problem=problem, form=form)
        access.set_cookie(response, access.visit_cookie, visit)
        return response

    # What goes wrong.

    async def refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._render(request, "problem.html", error.status_code, problem=error.detail)

    async def unreadable(self, request: Request, error: Exception) -> Response:
        return self._render(request, "problem.html", 503, problem=f"The database cannot be read: {error}")

    # Writing.

    def _page(self, request: Request, template: str, look: Look, **values: Any) -> Response:
        return self._render(request, template, 200, look=look, **values)

    def _render(self, request: Request, template: str, status: int, **values: Any) -> Response:
        visitor = _visitor(request)
        now_ms = values["look"].now_ms if "look" in values else self._site.source.clock()
        text = self._environment.get_template(template).render(
            path=request.url.path,
            here=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
            visitor=visitor,
            token=self._site.access.forms.of(visitor.binding) if visitor.binding else "",
            now_ms=now_ms,
            **values,
        )
        return HTMLResponse(text, status)


def _environment(site: Site) -> Environment:
    environment = Environment(
        loader=PackageLoader("broker_server.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        words.percent,
        words.points,
        words.plain,
        words.number,
        words.count,
        words.size,
        words.span,
        words.moment,
        words.iso,
        words.short,
    )
    environment.filters |= {word.__name__: word for word in filters}
    environment.globals |= {
        "pages": PAGES,
        "ago": words.ago,
        "unknown": words.UNKNOWN,
        "federation": site.source.around.settings.federation,
        "has_login": site.access.has_login,
        "has_orders": site.spool is not None,
    }
    return environment


def _visitor(request: Request) -> Visitor:
    visitor = request.scope.get("visitor", Visitor())
    assert isinstance(visitor, Visitor)
    return visitor


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as error:
        raise HTTPException(404, "There is no record of this round.") from error
