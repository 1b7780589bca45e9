"""Eclipse Mosquitto: its configuration for a federation, and a process of it on loopback."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from broker_server.brokers.loopback import LOOPBACK, BrokerError, BrokerProcess
from fd_protocol.topics import acl_lines, subscription_lines
from fd_runtime.files import write_atomically
from fd_runtime.links.link import TlsFiles

_TEMPLATE = "mosquitto.conf.template"
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # Debian keeps it where a user's shell does not look


@dataclass(frozen=True, slots=True)
class MosquittoSettings:
    """What a deployment chooses; the rest stands in the template, with its reasons.

    Attributes:
        folder: where configuration, ACL and the broker's own state go.
        tls: the broker's identity; its `ca` is the root whose clients are let in.
        crl: the revocation list of the authority that issued the clients' certificates.
        user: whom a broker started by root becomes; `folder` must be theirs to write, the files theirs to read.
        max_connections: -1 for as many as there are file descriptors.
        guard: the plugin of `deploy/mosquitto/guard`, that refuses a device all but its own subscriptions.
        shards: of the federation's uploads (`[rounds] shards`); a device may write to no others.
    """

    folder: Path
    tls: TlsFiles
    crl: Path
    host: str = LOOPBACK
    port: int = 8883
    user: str = "mosquitto"
    max_connections: int = -1
    memory_limit_bytes: int = 2 << 30
    shards: int = 1
    guard: Path | None = None


def write_config(settings: MosquittoSettings, *, federation: str, aggregator: str) -> Path:
    """Write mosquitto.conf and its ACL into the folder, and return the former's path."""
    folder = settings.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    acl_path, config_path = folder / "acl", folder / "mosquitto.conf"
    rules = acl_lines(federation, aggregator, shards=settings.shards)
    write_atomically(acl_path, "\n".join([*rules, ""]).encode())
    lines = [_render(settings, folder, acl_path), *_guard_lines(settings, federation, aggregator)]
    write_atomically(config_path, "\n".join(lines).encode())
    return config_path


def _guard_lines(settings: MosquittoSettings, federation: str, aggregator: str) -> list[str]:
    if settings.guard is None:
        return []
    options = [f"plugin_opt_{line}" for line in subscription_lines(federation, aggregator)]
    return ["# --- what may be subscribed to ---", f"plugin {settings.guard.resolve()}", *options, ""]


def _render(settings: MosquittoSettings, folder: Path, acl_path: Path) -> str:
    return Template(files("broker_server").joinpath(_TEMPLATE).read_text()).substitute(
        user=settings.user,
        host=settings.host,
        port=settings.port,
        ca=settings.tls.ca.resolve(),
        certificate=settings.tls.certificate.resolve(),
        key=settings.tls.key.resolve(),
        crl=settings.crl.resolve(),
        acl=acl_path,
        folder=folder,
        max_connections=settings.max_connections,
        memory_limit_bytes=settings.memory_limit_bytes,
    )


def packaged_guard() -> Path | None:
    """Return the guard of our Debian package, where this program runs from there."""
    path = Path(sys.prefix, "mosquitto", "fedistill_guard.so")
    return path if path.is_file() else None


def find_mosquitto() -> Path:
    """Return the program.

    Raises:
        BrokerError: it is not installed.
    """
    found = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS]))
    if found is None:
        raise BrokerError("mosquitto is not installed: sudo apt-get install mosquitto")
    return Path(found)


def mosquitto_process(config: Path, port: int) -> BrokerProcess:
    """Return a broker that runs `config`, not started yet.

    SIGHUP (`reload`) makes it read ACL and revocation list again; connections that stand are not looked at.

    Raises:
        BrokerError: Mosquitto is not installed.
    """
    return BrokerProcess([str(find_mosquitto()), "-c", str(config)], port, config.with_suffix(".log"))
