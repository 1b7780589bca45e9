"""`broker-server releases`: what devices should run, read from the database; the server may be running."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker_server.commanding import with_config
from broker_server.config import Config
from broker_server.events import Published, Release
from broker_server.journal import Journal
from broker_server.releases import Releases
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.store import Store


def add_releases_command(commands: Any) -> None:
    """Add `releases`."""
    parser = commands.add_parser("releases", help="list what devices should run: releases, and what was published")
    with_config(parser, _run)


def _run(arguments: argparse.Namespace) -> int:
    releases = _read(arguments.config)
    rows = [_facts(one, releases) for one in reversed(releases.made)]
    published = [_published(one, releases) for one in reversed(releases.published)]
    if arguments.json:
        told = {"count": releases.count, "releases": rows, "published": published}
        print(json.dumps(told, indent=1))  # noqa: T201 - what was asked for
        return 0
    console = Console()
    if published:
        console.print(_table("published", published))
    if rows or not published:
        console.print(_table("released by the student", rows))
    return 0


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(*(rows[0] if rows else ("no release: devices run the bundle that they were born with",)), title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


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
        "current": one == releases.current and releases.own is None,
        "verified": one.is_verified,
        "round": one.round.number,
        "made": _time(one.at_ms),
        "package_bytes": one.package_bytes,
        "bundle": one.bundle.hex(),
    }


def _published(one: Published, releases: Releases) -> dict[str, Any]:
    return {
        "version": one.version,
        "current": one in releases.standing,
        "family": one.family,
        "published": _time(one.at_ms),
        "package_bytes": one.package_bytes,
        "bundle": one.bundle.hex(),
        "rollout": _rollout(one, releases),
    }


def _rollout(one: Published, releases: Releases) -> str:
    """How far it is, for what stands now."""
    found = releases.rollout_of(one.family)
    return found.words if found is not None and found.bundle == one.bundle and one in releases.standing else ""


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="seconds")
