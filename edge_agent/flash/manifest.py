"""A list of images as Raspberry Pi Imager reads it (`*.rpi-imager-manifest`): which is whose, and its bytes.

Imager shows each entry by name, writes it and checks the SHA-256. `init_format` is none: ours are customised, and what
Imager would add would take the place of it.

Source: raspberrypi/rpi-imager doc/json-schema, doc/local_json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from edge_agent.flash.boards import Board, BoardName

SUFFIX = ".rpi-imager-manifest"
_ICON = "icons/cat_raspberry_pi_os.png"  # one that Imager has
_DEVICES = ("pi3-64bit", "pi4-64bit", "pi5-64bit")
_ARCHITECTURES = {"arm64": "armv8", "amd64": "amd64"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: whose it is, and what its bytes are."""

    device: str
    federation: str
    host: str
    image: Path
    size: int
    sha256: str


def manifest(entries: Iterable[Entry], board: Board, made_on: date) -> bytes:
    """Return the list of images that were made for one board."""
    listed = {"os_list": [_entry(one, board, made_on) for one in entries]}
    return (json.dumps(listed, indent=1, ensure_ascii=False) + "\n").encode()


def _entry(entry: Entry, board: Board, made_on: date) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": f"{entry.device} ({entry.federation})",
        "description": f"{board.system} with fedistill, host {entry.host}. For this one device.",
        "icon": _ICON,
        "url": entry.image.absolute().as_uri(),
        "extract_size": entry.size,
        "extract_sha256": entry.sha256,
        "image_download_size": entry.size,
        "image_download_sha256": entry.sha256,
        "release_date": made_on.isoformat(),
        "init_format": "none",
    }
    if board.name is not BoardName.GENERIC_CLOUDINIT:
        told["devices"] = list(_DEVICES)
    if board.architecture:
        told["architecture"] = _ARCHITECTURES[board.architecture]
    return told
