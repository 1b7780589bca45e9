"""Packages for devices over HTTPS, `GET /v1/blobs/SHA256` with ranges, and what is signed of them, `GET /v1/tuf/NAME`.

A process beside the aggregator, as the dashboard is. A package is asked for by its digest: nothing lists them, a link
that leads elsewhere is not followed, and what is served never changes. Off loopback devices show the certificate that
they show the broker; whoever has none, or one that was revoked, gets nothing. The revocation list is read at the start.

What is deliberately absent: uploads, and any word on which package is for whom (the broker's nudge).
"""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from broker_server.config import Config
from broker_server.package_settings import PackageSettings
from fd_runtime.config import load_toml
from fd_runtime.starting import blame

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DOCUMENT = re.compile(r"(?:[1-9][0-9]{0,9}\.(?:root|targets|students|snapshot)|timestamp)\.json")
_NOT_FOUND = 404
_NOT_LONG = {"Cache-Control": "no-cache"}
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_MOST_CONNECTIONS = 256
_FAREWELL_S = 2

log = logging.getLogger("broker-server")


def serve(path: Path) -> None:
    """Serve the packages of the federation whose settings are at `path`, until SIGINT or SIGTERM.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
    """
    config = load_toml(path, Config)
    settings = config.packages
    with blame(path, "packages"):
        terms = _terms(settings, config.state.releases / "web")
        terms.load()
        _check_devices(terms, settings)
    scheme = "https" if settings.tls else "http"
    log.info("packages: %s://%s:%d", scheme, settings.host, settings.port)
    uvicorn.Server(terms).run()


def make_app(web: Path) -> Starlette:
    """Return the application over the folder `web`, which may come to be later."""
    blobs = web / "v1" / "blobs"

    def blob(request: Request) -> FileResponse:
        digest = request.path_params["digest"]
        place = blobs / digest
        if not _DIGEST.fullmatch(digest) or place.is_symlink() or not place.is_file():
            raise HTTPException(_NOT_FOUND)
        return FileResponse(place, media_type="application/octet-stream", headers=_FOR_EVER)

    def document(request: Request) -> Response:
        """A device that has everything asks for a root that is yet to come: that answer is as short as can be."""
        name = request.path_params["name"]
        place = web / "v1" / "tuf" / name
        if not _DOCUMENT.fullmatch(name) or place.is_symlink() or not place.is_file():
            return Response(status_code=_NOT_FOUND)
        return FileResponse(place, media_type="application/json", headers=_NOT_LONG)

    return Starlette(routes=[Route("/v1/blobs/{digest}", blob), Route("/v1/tuf/{name}", document)])


def _terms(settings: PackageSettings, web: Path) -> uvicorn.Config:
    tls, ca = settings.tls, settings.ca
    return uvicorn.Config(
        make_app(web),
        host=settings.host,
        port=settings.port,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(ca) if ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if ca else ssl.CERT_NONE,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_FAREWELL_S,
    )


def _check_devices(terms: uvicorn.Config, settings: PackageSettings) -> None:
    """Have revoked certificates refused."""
    if terms.ssl is None:
        return
    terms.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.crl is not None:
        terms.ssl.load_verify_locations(settings.crl)
        terms.ssl.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
