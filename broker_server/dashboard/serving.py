"""The dashboard as a process: settings and tokens in, an HTTP server until it is told to stop."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import uvicorn

from broker_server.config import Config
from broker_server.dashboard.access import Tokens
from broker_server.dashboard.app import Site, make_app
from broker_server.dashboard.expiry import expiries
from broker_server.dashboard.guard import Access
from broker_server.dashboard.reading import Source, Surroundings
from broker_server.dashboard.settings import DashboardSettings
from broker_server.equipment import load_equipment
from broker_server.sites.patience import LOOPBACK, Patience
from fd_protocol.errors import InvalidValueError
from fd_runtime.starting import blame

_MOST_CONNECTIONS = 256
_FAREWELL_S = 2

log = logging.getLogger("broker-server")


def serve(path: Path) -> None:
    """Serve the dashboard of the settings file at `path`, until SIGINT or SIGTERM.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
    """
    equipment = load_equipment(path)
    config = equipment.config
    with blame(path, "dashboard"):
        tokens = read_tokens(config)
    around = Surroundings.of(equipment)
    site = Site(
        Source(config.state.store, config.state.lock, around),
        Access(config.dashboard, tokens),
        spool=config.state.orders,
        expiries=lambda: tuple(expiries(config)),
    )
    server = uvicorn.Server(_terms(config, site))
    scheme = "https" if config.dashboard.tls else "http"
    log.info("dashboard: %s://%s:%d", scheme, config.dashboard.host, config.dashboard.port)
    server.run()


def read_tokens(config: Config) -> Tokens:
    """Return the tokens that the settings name.

    Raises:
        OSError: a file cannot be read.
        InvalidValueError: others than its owner may read it, or it holds no fit token.
    """
    settings = config.dashboard
    return Tokens(_token(settings.viewer_token_file), _token(settings.operator_token_file))


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidValueError(f"{path} may be read by others: chmod 600 {path}")
    return path.read_text(encoding="utf-8").strip()


def _patience(settings: DashboardSettings) -> Patience:
    proxy = settings.proxy
    return Patience(free=lambda address: address in LOOPBACK or (proxy is not None and proxy.is_trusted(address)))


def _terms(config: Config, site: Site) -> uvicorn.Config:
    settings = config.dashboard
    return uvicorn.Config(
        make_app(site),
        http=_patience(settings).protocol(),
        ws="none",
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls.certificate if settings.tls else None,
        ssl_keyfile=settings.tls.key if settings.tls else None,
        proxy_headers=False,  # whose word to take is for `guard` to say
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_FAREWELL_S,  # open pages never end by themselves
    )
