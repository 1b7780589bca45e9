"""An image, with another boot partition in the place of its own, written out and read again: every byte.

The bytes are hashed on their way out; what is read back must have the same hash. It is read from the disk: the kernel
is told first to forget what it holds of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.flash.errors import NotVerifiedError

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)
Watched = Callable[[str, int, Iterable[bytes]], Iterator[bytes]]
"""(step, bytes in all, chunks) -> the same chunks, looked at on their way."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """The bytes of file `path` stand where `image` has its own, from byte `start`."""

    image: Path
    start: int
    path: Path

    @property
    def size(self) -> int:
        return self.image.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole, front to back."""
        length = self.path.stat().st_size
        yield from _read(self.image, 0, self.start)
        yield from _read(self.path, 0, length)
        yield from _read(self.image, self.start + length, self.size - self.start - length)


def cut_out(image: Path, start: int, size: int, path: Path) -> None:
    """Copy `size` bytes from byte `start` of an image into a new file; zeros take no room."""
    with path.open("wb") as out:
        for chunk in _read(image, start, size):
            _put(out.fileno(), chunk)
        out.truncate(size)


def write_file(overlay: Overlay, target: Path, watched: Watched) -> str:
    """Write into the empty file `target`, read it again, and return the SHA-256 in hex.

    Raises:
        NotVerifiedError: it reads otherwise.
        OSError: no room.
    """
    digest = hashlib.sha256()
    with target.open("r+b") as out:
        for chunk in watched("writing", overlay.size, overlay.chunks()):
            digest.update(chunk)
            _put(out.fileno(), chunk)
        out.truncate(overlay.size)
        _let_go(out.fileno())
    return verify(target, overlay.size, digest.hexdigest(), watched)


def write_disk(overlay: Overlay, disk: Path, watched: Watched, *, is_shared: bool = False) -> str:
    """Write onto a disk, read it again, and return the SHA-256 in hex.

    What makes it bootable, the first chunk, is written last: a card that was taken out before boots nowhere.

    Args:
        overlay: what is written.
        disk: its device file.
        watched: looks on.
        is_shared: write though somebody else has it open; otherwise the kernel refuses.

    Raises:
        NotVerifiedError: it reads otherwise.
        OSError: it is in use, too small, gone.
    """
    digest = hashlib.sha256()
    descriptor = os.open(disk, os.O_WRONLY | os.O_CLOEXEC | (0 if is_shared else os.O_EXCL))
    try:
        first = b""
        for chunk in watched("writing", overlay.size, overlay.chunks()):
            digest.update(chunk)
            if first:
                _write_all(descriptor, chunk)
            else:
                first = chunk
                os.lseek(descriptor, len(chunk), os.SEEK_SET)
        os.fsync(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _write_all(descriptor, first)
        _let_go(descriptor)
    finally:
        os.close(descriptor)
    return verify(disk, overlay.size, digest.hexdigest(), watched)


def verify(path: Path, size: int, expected: str, watched: Watched) -> str:
    """Read the first `size` bytes of `path` and return their SHA-256.

    Raises:
        NotVerifiedError: it is not `expected`.
    """
    digest = hashlib.sha256()
    for chunk in watched("reading", size, _read(path, 0, size)):
        digest.update(chunk)
    found = digest.hexdigest()
    if found != expected:
        raise NotVerifiedError(
            f"{path}: reads otherwise than it was written (sha256 {found[:16]}, not {expected[:16]})"
        )
    return found


def _read(path: Path, start: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while size:
            chunk = file.read(min(CHUNK, size))
            if not chunk:
                raise NotVerifiedError(f"{path}: ends {size} bytes too soon")
            size -= len(chunk)
            yield chunk


def _put(descriptor: int, chunk: bytes) -> None:
    """Write a chunk to a new file, or a hole where it is all zeros."""
    if chunk == _ZEROS:
        os.lseek(descriptor, len(chunk), os.SEEK_CUR)
    else:
        _write_all(descriptor, chunk)


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _let_go(descriptor: int) -> None:
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
