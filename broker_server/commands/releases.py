"""`broker-server releases`: what devices should run, read from the database; the server may be running."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from broker_server import deliveries
from broker_server.commands.commanding import existing_store, kilobytes, tell, utc, with_config
from broker_server.config import Config
from broker_server.core.delivery import Delivery
from broker_server.core.events import Published, Release
from broker_server.core.releases import Releases
from broker_server.journal import Journal
from fd_runtime.config import load_toml
from fd_runtime.pages import Section
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store

_PUBLISHED = ("bundle", "family", "version", "published (UTC)", "kB", "rollout")
_RELEASED = ("bundle", "version", "verified", "round", "made (UTC)", "kB", "rollout")
_LOST = ("device", "bundle", "last word", "heard of it (UTC)", "gone (UTC)")
_Lost = Mapping[bytes, Sequence[Delivery]]
_DIGITS = 12
"""Of a bundle's digest, for people."""


def add_releases_command(commands: Any) -> None:
    """Add `releases`."""
    parser = commands.add_parser("releases", help="list what devices should run: releases, and what was published")
    with_config(parser, _run)


def _run(arguments: argparse.Namespace) -> int:
    releases, lost = _read(arguments.config)
    published, made = tuple(reversed(releases.published)), tuple(reversed(releases.made))
    told = {
        "count": releases.count,
        "releases": [_facts(one, releases, lost) for one in made],
        "published": [_published(one, releases, lost) for one in published],
    }
    sections = []
    if published:
        rows = tuple(_published_row(one, releases) for one in published)
        standing = frozenset(_name(one) for one in releases.standing)
        sections.append(Section("Published", _PUBLISHED, rows, highlighted=standing))
    if made:
        current = {_name(one) for one in made if _is_current(one, releases)}
        rows = tuple(_made_row(one, releases) for one in made)
        sections.append(Section("Released by the student", _RELEASED, rows, highlighted=frozenset(current)))
    if silent := [one for found in lost.values() for one in found]:
        rows = tuple((one.device, one.bundle[:_DIGITS], one.words, utc(one.at_ms), _utc(one.gone_ms)) for one in silent)
        sections.append(Section("Fell silent on their way", _LOST, rows))
    title = "What devices should run" if sections else "No release: devices run the bundle that they were born with"
    tell(arguments, told, title, sections)
    return 0


def _published_row(one: Published, releases: Releases) -> tuple[str, ...]:
    when = _rollout(one, releases) if one in releases.standing else "no more"
    return _name(one), one.family, one.version, utc(one.at_ms), kilobytes(one.package_bytes), when


def _made_row(one: Release, releases: Releases) -> tuple[str, ...]:
    is_verified, made = "yes" if one.is_verified else "no", (utc(one.at_ms), kilobytes(one.package_bytes))
    return _name(one), one.version, is_verified, str(one.round.number), *made, _rollout(one, releases)


def _name(one: Published | Release) -> str:
    """Return the beginning of its digest: two families may have one version."""
    return one.bundle.hex()[:_DIGITS]


def _utc(at_ms: int) -> str:
    return utc(at_ms) if at_ms else "no: it has not ended its trial"


def _read(path: Path) -> tuple[Releases, _Lost]:
    """Return what should run, and who was lost on the way, by bundle."""
    config = load_toml(path, Config)
    with blame(path, "state.folder"), Store.view(existing_store(config)) as store:
        releases = Journal(store, config.federation).replay().releases
        bundles = [one.bundle for one in releases.rollouts if one.lost]
        return releases, {bundle: deliveries.lost(store, config.federation, bundle) for bundle in bundles}


def _is_current(one: Release, releases: Releases) -> bool:
    return one == releases.current and releases.own is None


def _facts(one: Release, releases: Releases, lost: _Lost) -> dict[str, Any]:
    return {
        "version": one.version,
        "current": _is_current(one, releases),
        "verified": one.is_verified,
        "round": one.round.number,
        "made": _time(one.at_ms),
        "package_bytes": one.package_bytes,
        "bundle": one.bundle.hex(),
        "rollout": _rollout(one, releases),
        "lost": _names(one, lost),
    }


def _published(one: Published, releases: Releases, lost: _Lost) -> dict[str, Any]:
    return {
        "version": one.version,
        "current": one in releases.standing,
        "family": one.family,
        "published": _time(one.at_ms),
        "package_bytes": one.package_bytes,
        "bundle": one.bundle.hex(),
        "rollout": _rollout(one, releases),
        "lost": _names(one, lost),
    }


def _rollout(one: Published | Release, releases: Releases) -> str:
    """How far it is, for what stands now."""
    found = releases.rollout_of(one.family)
    stands = one in releases.standing if isinstance(one, Published) else _is_current(one, releases)
    return found.words if found is not None and found.bundle == one.bundle and stands else ""


def _names(one: Published | Release, lost: _Lost) -> list[str]:
    """Who fell silent on the way to it."""
    return [silent.device for silent in lost.get(one.bundle, ())]


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="seconds")
