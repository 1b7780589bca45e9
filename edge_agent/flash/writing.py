"""An image, with another boot partition in the place of its own, written out and read again: every byte.

The bytes are hashed on their way out; what is read back must have the same hash. It is read from the disk: the kernel
is told first to forget what it holds of it. While writing, it must let go of what it holds every so often, so that the
bar does not stand at its end for minutes while a slow card takes the rest.

Hashing, writing and what the disk does go on beside each other: each lets go of the interpreter.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.flash.errors import NotVerifiedError

CHUNK = 4 << 20  # as large as lets threads that hand over to one another wait little
_ZEROS = bytes(CHUNK)
_FLUSHED_BYTES = 64 << 20
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
    with target.open("r+b") as out, _flushing(out.fileno()) as flush:
        for chunk in _hashed(digest, watched("writing", overlay.size, overlay.chunks())):
            _put(out.fileno(), chunk)
            flush(len(chunk))
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
    digest, first = hashlib.sha256(), b""
    descriptor = os.open(disk, os.O_WRONLY | os.O_CLOEXEC | (0 if is_shared else os.O_EXCL))
    try:
        with _flushing(descriptor) as flush:
            for chunk in _hashed(digest, watched("writing", overlay.size, overlay.chunks())):
                # In the place of the first chunk zeros: what the card held before does not boot either.
                _write_all(descriptor, chunk if first else bytes(len(chunk)))
                first = first or chunk
                flush(len(chunk))
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
    for _ in _hashed(digest, watched("reading", size, _read(path, 0, size))):
        pass
    found = digest.hexdigest()
    if found != expected:
        raise NotVerifiedError(f"{path}: reads otherwise than it was written: {found[:16]}, not {expected[:16]}")
    return found


def _hashed(digest: hashlib._Hash, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield chunks, each hashed beside what is done with it."""
    with ThreadPoolExecutor(1) as hasher:
        for chunk in chunks:
            behind = hasher.submit(digest.update, chunk)
            yield chunk
            behind.result()


@contextmanager
def _flushing(descriptor: int) -> Iterator[Callable[[int], None]]:
    """Yield what is told how many bytes were written, and has the disk take them beside the next ones."""
    with ThreadPoolExecutor(1) as flusher:
        behind, held = flusher.submit(int), 0

        def flush(count: int) -> None:
            nonlocal behind, held
            held += count
            if held >= _FLUSHED_BYTES:
                behind.result()  # one stretch behind, no more: the bar says what is there
                behind, held = flusher.submit(_flush, descriptor), 0

        yield flush
        behind.result()


def _flush(descriptor: int) -> int:
    os.fdatasync(descriptor)
    return 0


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
