"""One card, from look to proof. Everything is checked before the first byte is written.

Source: an image, unpacked where it was packed, and what it is
└─ make_image -> a file of its own
└─ make_card  -> a disk
seed_mounted: a card that was written by others and lies mounted
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_agent.flash import unpacking
from edge_agent.flash.boards import Board, BoardName, recognise
from edge_agent.flash.contents import Content, digest_of, digests_of, lay_out
from edge_agent.flash.disks import Disk
from edge_agent.flash.errors import NoRoomError, NotVerifiedError
from edge_agent.flash.fat import Fat
from edge_agent.flash.looking import Seen, look_at_card, look_at_image
from edge_agent.flash.mechanisms import boot_files
from edge_agent.flash.payload import FOLDER
from edge_agent.flash.seed import Seed
from edge_agent.flash.writing import Overlay, Watched, cut_out, write_disk, write_file
from fd_runtime.files import new_file


@dataclass(frozen=True, slots=True)
class Source:
    """An image that is ready to be copied.

    Attributes:
        image: its bytes as a card has them.
        seen: its boot partition.
        board: what it is.
        work: folder for files that nobody keeps.
    """

    image: Path
    seen: Seen
    board: Board
    work: Path


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and what was read back of it.

    written: files of ours; kept: files of the boot partition that are as they were.
    """

    size: int
    sha256: str
    written: int
    kept: int


@contextmanager
def source(image: Path, said: BoardName | None, work: Path, watched: Watched) -> Iterator[Source]:
    """Yield an image, unpacked and recognised. What is in `work` of it goes again.

    Raises:
        NotRecognisedError: no image that we know.
        OSError: it cannot be read, or there is no room to unpack it.
    """
    with TemporaryDirectory(prefix=".flash-", dir=work) as name:
        folder = Path(name)
        raw = folder / "image"  # a name that mtools and debugfs take for nothing else
        if unpacking.is_packed(image):
            unpacking.unpack(image, raw, watched)
        else:
            raw.symlink_to(image.absolute())
        seen = look_at_image(raw)
        yield Source(raw, seen, recognise(seen.facts, said), folder)


def make_image(source: Source, seed: Seed, out: Path, watched: Watched) -> Made:
    """Write a seeded copy of the image to the new file `out`. Nobody else may read it: it holds the device's secrets.

    Raises:
        FileExistsError: there is an `out`.
        NoRoomError: the boot partition is full.
        NotVerifiedError: it reads otherwise than it was written; there is no `out` then.
    """
    with _seeded(source, seed) as (overlay, files), new_file(out) as part:
        digest = write_file(overlay, part, watched)
        kept = _compare(source, files, part)
    return Made(overlay.size, digest, len(files), kept)


def make_card(source: Source, seed: Seed, disk: Disk, watched: Watched, *, told_twice: bool) -> Made:
    """Write a seeded copy of the image onto a disk that may be written over (`disks.check_may_be_written`).

    Raises:
        NoRoomError: the boot partition is full.
        NotVerifiedError: it reads otherwise than it was written.
        OSError: it is in use, or gone.
    """
    with _seeded(source, seed) as (overlay, files):
        digest = write_disk(overlay, disk.path, watched, is_shared=told_twice and bool(disk.mounted))
        kept = _compare(source, files, disk.path)
    return Made(overlay.size, digest, len(files), kept)


def seed_mounted(folder: Path, said: BoardName | None, seed_for: Callable[[Board], Seed]) -> tuple[Board, Seed, Made]:
    """Write what a device gets onto the boot partition that is mounted at `folder`, and read it again.

    Raises:
        NotRecognisedError: no boot partition that we know.
        NotForImageError: somebody else has customised it.
        NoRoomError: it is full.
        NotVerifiedError: a file reads otherwise than it was written.
    """
    board = recognise(look_at_card(folder), said)
    seed = seed_for(board)
    files = boot_files(seed, board, lambda name: _bytes(folder / name))
    needed = sum(content.stat().st_size if isinstance(content, Path) else len(content) for content in files.values())
    status = os.statvfs(folder)
    if needed > status.f_bavail * status.f_frsize:
        raise NoRoomError(str(folder), needed, status.f_bavail * status.f_frsize)
    _remove_payload(folder)
    lay_out(files, folder)
    for name, digest in digests_of(files).items():
        _forget(folder / name)
        if digest_of(folder / name) != digest:
            raise NotVerifiedError(f"{folder / name}: reads otherwise than it was written")
    return board, seed, Made(needed, "", len(files), 0)


@contextmanager
def _seeded(source: Source, seed: Seed) -> Iterator[tuple[Overlay, dict[str, Content]]]:
    """Yield the image with a boot partition that has the device's files."""
    part = source.seen.boot
    stock = Fat(source.image, part.start)
    files = boot_files(seed, source.board, stock.read)
    boot = source.work / f"boot-{seed.device}"
    try:
        cut_out(source.image, part.start, part.size, boot)
        Fat(boot).put(files, replaced_folder=FOLDER)
        yield Overlay(source.image, part.start, boot), files
    finally:
        boot.unlink(missing_ok=True)


def _compare(source: Source, files: dict[str, Content], written: Path) -> int:
    """Read every file of the boot partition that was written; return how many of the image's own are as they were.

    Raises:
        NotVerifiedError: a file of ours or of the image is not what it should be, or is there too many.
    """
    start = source.seen.boot.start
    expected = {
        name: digest_of(data) for name, data in Fat(source.image, start).files() if not name.startswith(f"{FOLDER}/")
    }
    kept = len(expected.keys() - files.keys())
    expected |= digests_of(files)
    found = {name: digest_of(data) for name, data in Fat(_plainly_named(source, written), start).files()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise NotVerifiedError(f"{written}: wrong on its boot partition: {', '.join(wrong[:5])}")
    return kept


def _plainly_named(source: Source, path: Path) -> Path:
    """Return another name of `path`, one that mtools takes for nothing else."""
    name = source.work / "written"
    name.unlink(missing_ok=True)
    name.symlink_to(path.absolute())
    return name


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _remove_payload(folder: Path) -> None:
    for path in sorted((folder / FOLDER).rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _forget(path: Path) -> None:
    """Have the kernel read the file from the card, not from its memory."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
