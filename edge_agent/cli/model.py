"""`edge-agent model`: the bundles that are here, and which of them speaks."""

from __future__ import annotations

import argparse

from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from fd_runtime.artifacts import load_bundle
from fd_runtime.starting import blame


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    settings = load_settings(path)
    with blame(path, "model.bundle"):
        bundle = load_bundle(settings.model.bundle)
    manifest = bundle.manifest
    told = {
        "is_current": True,
        "name": manifest.name,
        "version": manifest.version,
        "family": manifest.family,
        "bundle": bundle.digest.hex(),
        "runtime": settings.model.runtime,
        "verified_on": list(manifest.verified_on),
        "folder": str(settings.model.bundle),
        "has_learned": settings.state.checkpoint.is_file(),
    }
    row = ("*", manifest.name, manifest.version, manifest.family, bundle.digest.hex()[:16], str(settings.model.bundle))
    tell(arguments, [told], table(("", "name", "version", "family", "digest", "folder"), [row]))
    return 0
