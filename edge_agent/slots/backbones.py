"""Whose compiled engines a device still needs: those of every bundle that may run here, or is on trial."""

from __future__ import annotations

from edge_agent.equipment import Equipment
from edge_agent.slots.shelf import Shelf
from fd_protocol.documents import InvalidDocumentError
from fd_protocol.manifest import MANIFEST_NAME, Manifest, Role


def backbones(equipment: Equipment) -> frozenset[str]:
    """Return the SHA-256 of each backbone, in hex. A bundle that cannot be read has none: it will not run either."""
    settings, shelf = equipment.settings, Shelf(equipment.settings.state.slots)
    folders = [settings.model.bundle, equipment.bundle.folder]
    for digest in shelf.load().kept:
        folders += [shelf.slot(digest), shelf.slot(f"{digest}.new")]
    found = set()
    for folder in folders:
        try:
            manifest = Manifest.from_json((folder / MANIFEST_NAME).read_bytes())
        except (OSError, InvalidDocumentError):
            continue
        if Role.BACKBONE in manifest.files:
            found.add(manifest.files[Role.BACKBONE].sha256)
    return frozenset(found)
