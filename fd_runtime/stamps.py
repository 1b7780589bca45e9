"""Has a file changed? By what the file system says of it; its content is not read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int]
"""Inode, size, time of the last change: a file that is replaced has another inode."""


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None: it is not there, or cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
