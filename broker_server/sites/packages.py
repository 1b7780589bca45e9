"""The HTTPS port for devices: packages, `GET /v1/blobs/SHA256` with ranges; what is signed of them, `GET /v1/tuf/NAME`;
and enrolment where it is on.

A process beside the aggregator, as the dashboard is. A package is asked for by its digest: nothing lists them, a link
that leads elsewhere is not followed, and what is served never changes. Off loopback devices show the certificate that
they show the broker; whoever has none, or one that was revoked, gets nothing but, where enrolment is on, the chance to
enrol; who dawdles is cut off (`patience`). Certificates and revocation list are read again when they change: an old
list would lock everybody out.

What is deliberately absent: uploads, and any word on which package is for whom (the broker's nudge).
"""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from broker_server.config import Config
from broker_server.identity.desk import Desk
from broker_server.identity.keeping import Keeping
from broker_server.sites.enrolment import EnrolmentSite, utc_now
from broker_server.sites.https import FreshTls, PeerProtocol, RevocationList, peer_of
from broker_server.sites.patience import Patience
from broker_server.sites.settings import TlsTerms
from fd_runtime.config import load_toml
from fd_runtime.starting import blame

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORBIDDEN, _NOT_FOUND, _NO_SUCH_RANGE = 403, 404, 416
_DOCUMENT = re.compile(r"(?:[1-9][0-9]{0,9}\.(?:root|targets|students|snapshot)|timestamp)\.json")
_NOT_LONG = {"Cache-Control": "no-cache"}
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_MOST_CONNECTIONS = 256
_PLACES = 8
"""Connections of one device."""
_FAREWELL_S = 2

log = logging.getLogger("broker-server")


def serve(path: Path) -> None:
    """Serve the packages of the federation whose settings are at `path`, and enrolment, until SIGINT or SIGTERM.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
    """
    config = load_toml(path, Config)
    tls = config.packages.terms(config.enrolment.known_authority if config.enrolment.enabled else None)
    with ExitStack() as stack:
        with blame(path, "packages"):
            terms = uvicorn.Config(
                _make_app(config, tls),
                host=config.packages.host,
                port=config.packages.port,
                http=Patience(places=_PLACES).protocol(PeerProtocol),
                ws="none",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="warning",
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_FAREWELL_S,
            )
            terms.load()
            terms.ssl = FreshTls(tls).context if tls else None
        if config.enrolment.enabled:
            with blame(path, "enrolment.authority"):
                _enter_keeping(stack, config)
        scheme = "https" if tls else "http"
        log.info("packages: %s://%s:%d", scheme, config.packages.host, config.packages.port)
        uvicorn.Server(terms).run()


def make_app(web: Path, tls: TlsTerms | None = None, enrolment: EnrolmentSite | None = None) -> Starlette:
    """Return the application over the folder `web`, which may come to be later.

    Args:
        web: of the shelf.
        tls: by which clients are known; None = nobody shows anything, on loopback.
        enrolment: None = nobody enrols here.
    """
    blobs = web / "v1" / "blobs"
    revocations = RevocationList(tls.crl) if tls and tls.crl else None

    def check(request: Request) -> None:
        if tls is not None and tls.ca is not None and peer_of(request, revocations) is None:
            raise HTTPException(_FORBIDDEN)

    def blob(request: Request) -> FileResponse:
        check(request)
        digest = request.path_params["digest"]
        place = blobs / digest
        if "," in request.headers.get("range", ""):
            raise HTTPException(_NO_SUCH_RANGE)  # a device asks for the rest; a thousand pieces are asked for by nobody
        if not _DIGEST.fullmatch(digest) or place.is_symlink() or not place.is_file():
            raise HTTPException(_NOT_FOUND)
        return FileResponse(place, media_type="application/octet-stream", headers=_FOR_EVER)

    def document(request: Request) -> Response:
        """A device that has everything asks for a root that is yet to come: that answer is as short as can be."""
        check(request)
        name = request.path_params["name"]
        place = web / "v1" / "tuf" / name
        if not _DOCUMENT.fullmatch(name) or place.is_symlink() or not place.is_file():
            return Response(status_code=_NOT_FOUND)
        return FileResponse(place, media_type="application/json", headers=_NOT_LONG)

    routes = [Route("/v1/blobs/{digest}", blob), Route("/v1/tuf/{name}", document)]
    return Starlette(routes=[*routes, *(enrolment.routes() if enrolment else ())])


def _make_app(config: Config, tls: TlsTerms | None) -> Starlette:
    enrolment = None
    if config.enrolment.enabled:
        desk = Desk.of(config.enrolment)
        enrolment = EnrolmentSite(desk, RevocationList(desk.authority.crl_path))
    return make_app(config.state.releases / "web", tls, enrolment)


def _enter_keeping(stack: ExitStack, config: Config) -> None:
    authority = config.enrolment.known_authority
    with authority.locked():  # there is one, and we may write to it
        pass
    if authority.root_key_path.exists():
        log.warning("%s lies beside a server: move it to offline storage", authority.root_key_path)
    keeping = Keeping(authority, config.enrolment.broker_pid_file, utc_now)
    keeping.start()
    stack.callback(keeping.stop)
