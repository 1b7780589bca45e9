"""`edge-agent model`: the bundles that are here, which of them speaks, and another one by the owner's hand.

A device that runs takes a wish within a second or two; one that is stopped, when it starts (`slots.keeper`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from edge_agent.settings import AgentSettings
from edge_agent.slots.machine import Offered
from edge_agent.slots.shelf import Shelf, Wish
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Manifest
from fd_runtime.artifacts import Bundle, MissingArtifactError, load_bundle
from fd_runtime.packages import described
from fd_runtime.starting import blame

EX_REFUSED = 1


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    settings = load_settings(path)
    with blame(path, "model.bundle"):
        told = list(_bundles(settings))
    rows = [
        (
            "*" if one["is_current"] else "",
            one["name"],
            one["version"],
            one["family"],
            one["bundle"][:16],
            one["folder"],
        )
        for one in told
    ]
    outcome = Shelf(settings.state.slots).load().outcome
    last = f"\n\nthe last release: {outcome}" if outcome else ""
    tell(arguments, told, table(("", "name", "version", "family", "digest", "folder"), rows) + last)
    return 0


def roll_back(arguments: argparse.Namespace) -> int:
    """Want the bundle before; the one that runs is known bad from then on."""
    path = config_path(arguments)
    shelf = Shelf(load_settings(path).state.slots)
    state = shelf.load()
    if state.previous is None:
        tell(arguments, {"obeyed": False}, "there is no bundle before: it is kept until a round has gone well")
        return EX_REFUSED
    with blame(path, "state.folder"):
        shelf.leave_wish(Wish(is_back=True))
    back = state.previous[:16] or "the one of the settings"
    tell(arguments, {"obeyed": True}, f"wanted: back to {back}")
    return 0


def install(arguments: argparse.Namespace) -> int:
    """Want the bundle in a package: it goes the way of any release."""
    path = config_path(arguments)
    shelf = Shelf(load_settings(path).state.slots)
    try:
        package = arguments.file.read_bytes()
    except FileNotFoundError as error:
        raise MissingArtifactError(arguments.file) from error
    manifest = described(package)
    if not isinstance(manifest, Manifest):
        raise InvalidValueError(f"{arguments.file} is a public set, no bundle")
    offered = Offered(manifest.digest.hex(), manifest.version, sha256(package).hex(), len(package), by_owner=True)
    if offered.bundle in shelf.load().known_bad:
        tell(arguments, {"obeyed": False}, f"{offered.version} is known bad on this device")
        return EX_REFUSED
    with blame(path, "state.folder"):
        shelf.leave_wish(Wish(offered=offered, path=str(arguments.file.absolute())))
    tell(arguments, {"obeyed": True, "bundle": offered.bundle}, f"wanted: {offered.version} ({offered.bundle[:16]})")
    return 0


def _bundles(settings: AgentSettings) -> Iterator[dict[str, Any]]:
    """The settings' own, then those that came over the air."""
    shelf = Shelf(settings.state.slots)
    slots = shelf.load()
    own = load_bundle(settings.model.bundle)
    yield {**_told(own, settings), "is_current": not slots.active, "has_learned": settings.state.checkpoint.is_file()}
    for digest in sorted(slots.kept):
        try:
            bundle = load_bundle(shelf.slot(digest))
        except FedistillError:  # on its way, or about to be missed
            continue
        has_learned = shelf.checkpoint(digest).is_file()
        yield {**_told(bundle, settings), "is_current": digest == slots.active, "has_learned": has_learned}


def _told(bundle: Bundle, settings: AgentSettings) -> Mapping[str, Any]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "family": manifest.family,
        "bundle": bundle.digest.hex(),
        "runtime": settings.model.runtime,
        "verified_on": list(manifest.verified_on),
        "folder": str(bundle.folder),
    }
