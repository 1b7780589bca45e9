"""What files hold: bytes, or the name of a file on this machine that holds them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

Content: TypeAlias = bytes | Path
Files: TypeAlias = Mapping[str, Content]
"""By name: '/' between folders, none at the front."""

_CHUNK = 1 << 20


def size_of(content: Content) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def digest_of(content: Content) -> str:
    """Return the SHA-256 of what a file holds, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digests_of(files: Files) -> dict[str, str]:
    return {name: digest_of(content) for name, content in files.items()}


def lay_out(files: Files, folder: Path) -> None:
    """Write files below a folder; each is on the disk when this returns."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_tree(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below a folder by its name from there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def tree(folder: Path) -> dict[str, Content]:
    """Return every file below a folder, unread, by its name from there."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
