"""`broker-server mosquitto`: configuration and ACL of the fleet's broker, from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from broker_server.mosquitto import MosquittoSettings, write_config
from fd_protocol.errors import InvalidValueError
from fd_runtime.link import TlsFiles

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
    parser.add_argument("--guard", type=Path, help="the broker's plugin of deploy/mosquitto/guard, where it was built")
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
    for path in (settings.tls.ca, settings.tls.certificate, settings.tls.key, settings.crl):
        if not path.is_file():
            raise InvalidValueError(
                f"{path} is missing: `broker-server ca sign PKI {name} --role broker --out {folder}`"
            )
    config = write_config(settings, federation=arguments.federation, aggregator=arguments.aggregator)
    sys.stdout.write(f"mosquitto -c {config}\n")
    return 0
