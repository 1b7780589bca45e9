"""A small ext4 on a loop device: what has reached it, at a moment; and what is there after the power went.

The file behind the loop holds what the kernel has written to the "disk", and nothing that it keeps in memory: a copy of
it, mounted, is the disk after a power cut, journal and all. The kernel writes what nobody has asked it to after 30
seconds (`dirty_expire_centisecs`), or 300 as far as the journal goes: no case takes that long.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

MEGABYTES = 16


@cache
def can_mount() -> bool:
    """Whether this machine lets us mount an image."""
    if os.geteuid() or not all(map(shutil.which, ("mkfs.ext4", "losetup", "mount"))):
        return False
    done = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    return done.returncode == 0


needs_disk = pytest.mark.skipif(
    not can_mount(), reason="mounting a disk of one's own needs root, mkfs.ext4 and losetup"
)


@dataclass(frozen=True, slots=True)
class Image:
    """What had reached the disk at some moment."""

    path: Path
    digest: str


class Disk:
    """Mounted at `folder / "disk"`; close it."""

    def __init__(self, folder: Path, megabytes: float = MEGABYTES) -> None:
        self._folder, self._image, self.mount = folder, folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with self._image.open("wb") as file:
            file.truncate(int(megabytes * (1 << 20)))
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        self._attach(self._image)

    def _attach(self, image: Path) -> None:
        _run("mount", "-o", "loop,noatime,commit=300", image, self.mount)

    def close(self) -> None:
        """Let it go; one that is busy, when it is busy no more."""
        subprocess.run(["umount", "--lazy", self.mount], check=False, capture_output=True)

    def sync(self) -> None:
        """Let everything reach it."""
        _run("sync", "-f", self.mount)

    def image(self) -> Image:
        """Return what has reached it so far."""
        pieces = list(_pieces(self._image))
        digest = hashlib.sha256(b"".join(b"%d %d " % (at, len(piece)) + piece for at, piece in pieces)).hexdigest()
        path = self._folder / f"{digest[:16]}.img"
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(self._image.stat().st_size)
                for at, piece in pieces:
                    file.seek(at)
                    file.write(piece)
        return Image(path, digest)

    def become(self, image: Image) -> None:
        """Be the disk as it was at that moment, after the power has come back."""
        _run("umount", self.mount)
        copy = self._folder / "after.img"
        _run("cp", "--sparse=always", image.path, copy)
        self._attach(copy)

    def free_bytes(self) -> int:
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize

    def fill(self, leaving: int = 0) -> Path:
        """Take what is free, but for about so many bytes; return the file to delete."""
        filler = self.mount / "filler"
        try:
            with filler.open("ab") as file:
                while (left := self.free_bytes() - leaving) > 0:
                    file.write(bytes(min(left, 1 << 16)))
                    file.flush()
        except OSError:  # no room, which is what was wanted
            pass
        return filler


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of what a file holds; between them it has holes, which is most of it."""
    with path.open("rb", buffering=0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                return
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            yield begin, os.pread(file.fileno(), at - begin, begin)


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
