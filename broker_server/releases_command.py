"""`broker-server releases`: what the student was released as, read from the database; the server may be running."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker_server.config import Config
from broker_server.events import Release
from broker_server.journal import Journal
from broker_server.releases import Releases
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.store import Store


def add_releases_command(commands: Any) -> None:
    """Add `releases`."""
    parser = commands.add_parser("releases", help="list what the student was released as")
    parser.add_argument("--config", type=Path, required=True, metavar="federation.toml", help="of the server")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    releases = _read(arguments.config)
    rows = [_facts(one, releases) for one in reversed(releases.made)]
    if arguments.json:
        print(json.dumps({"count": releases.count, "releases": rows}, indent=1))  # noqa: T201 - what was asked for
        return 0
    table = Table(*(rows[0] if rows else ("no release: devices run the bundle that they were born with",)))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    return 0


def _read(path: Path) -> Releases:
    config = load_toml(path, Config)
    with blame(path, "state.folder"):
        if not config.state.store.is_file():
            raise MissingArtifactError(config.state.store)
        with Store.view(config.state.store) as store:
            return Journal(store, config.federation).replay().releases


def _facts(one: Release, releases: Releases) -> dict[str, Any]:
    return {
        "version": one.version,
        "current": one == releases.current,
        "verified": one.is_verified,
        "round": one.round.number,
        "made": datetime.fromtimestamp(one.at_ms / 1000, timezone.utc).isoformat(timespec="seconds"),
        "package_bytes": one.package_bytes,
        "bundle": one.bundle.hex(),
    }
