"""`broker-server mosquitto`: configuration and ACL of the fleet's broker, from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from broker_server.brokers.mosquitto import MosquittoSettings, packaged_guard, write_config
from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import TlsFiles

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else


def add_mosquitto_command(subparsers: Subparsers) -> None:
    """Add `mosquitto`; it leaves `run(arguments) -> exit code` in the namespace."""
    parser = subparsers.add_parser("mosquitto", help="write mosquitto.conf and its ACL")
    parser.add_argument("folder", type=Path, help="where they go; holds NAME.pem, NAME.key and ca.pem of `ca sign`")
    parser.add_argument("--federation", required=True)
    parser.add_argument("--aggregator", required=True, help="the name that may read and write all of it")
    parser.add_argument("--name", default="broker", help="the broker's name in the certificate")
    parser.add_argument("--crl", type=Path, required=True, help="the authority's crl.pem")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - a broker is for others
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--shards", type=int, default=1, help="[rounds] shards of the federation")
    text = "the broker's plugin of deploy/mosquitto/guard; that of the Debian package is taken without a word"
    guard = parser.add_mutually_exclusive_group()
    guard.add_argument("--guard", type=Path, default=packaged_guard(), help=text)
    text = "none: a device may subscribe to what it likes (docs/security.md)"
    guard.add_argument("--no-guard", dest="guard", action="store_const", const=None, help=text)
    parser.add_argument("--user", default="mosquitto", help="whom it becomes when root starts it")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    folder, name = arguments.folder, arguments.name
    settings = MosquittoSettings(
        folder=folder,
        tls=TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key"),
        crl=arguments.crl,
        host=arguments.host,
        port=arguments.port,
        user=arguments.user,
        shards=arguments.shards,
        guard=arguments.guard,
    )
    if settings.guard is not None and not settings.guard.is_file():
        raise InvalidValueError(f"{settings.guard} is missing: deploy/mosquitto/README.md says how it is made")
    for path in (settings.tls.ca, settings.tls.certificate, settings.tls.key, settings.crl):
        if not path.is_file():
            raise InvalidValueError(
                f"{path} is missing: `broker-server ca sign PKI {name} --role broker --out {folder}`"
            )
    config = write_config(settings, federation=arguments.federation, aggregator=arguments.aggregator)
    if settings.guard is None:
        sys.stderr.write("without the guard: a device can fill the broker's memory with subscriptions\n")
    sys.stdout.write(f"mosquitto -c {config}\n")
    return 0
