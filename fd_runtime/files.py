"""Files change whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_RANDOM = "[a-z0-9_]" * 8
"""What `tempfile` puts at the end of a name."""


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, is_durable: bool = True) -> None:
    """Replace `path` by `data`, so that a reader, a crash or a power cut sees the old file or the new one.

    The file never exists with wider permissions than `mode`. Where it need not outlast a power cut (`is_durable` false)
    the disk is spared: after one the file may be empty.

    Raises:
        OSError: the folder is missing or full; `path` is as it was.
    """
    descriptor, temporary = _temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    if is_durable:
        sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int, str]:
    """Make the file that is to become `path`, mode 600; return its descriptor and its name."""
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what `write_atomically` left in `folder` where it was killed: of the file `name`, or of all.

    Nobody may be writing there meanwhile.

    Raises:
        OSError: one cannot be removed.
    """
    whose = "*" if name is None else glob.escape(name)
    for left in folder.glob(f".{whose}.{_RANDOM}"):
        left.unlink(missing_ok=True)


def destroy(path: Path) -> None:
    """Write over a file, to the disk, and remove it; on flash that is no promise about what the chip still holds.

    Raises:
        OSError: it cannot be written, or removed.
    """
    with path.open("r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for begin in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - begin)))
        os.fsync(file.fileno())
    path.unlink()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the name of an empty file to fill: it becomes `path` in one step at the end, or nothing where that raises.

    Raises:
        FileExistsError: there is a `path` already.
        OSError: the folder is missing or full.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, "exists already", str(path))
    descriptor, name = _temporary(path)
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.rename(path)
    finally:
        for left in path.parent.glob(f"{glob.escape(part.name)}*"):  # a database has files beside it
            left.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make durable what others may have left in memory alone: the content of a file, and that it is there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def claim(folder: Path) -> Path:
    """Make `folder`, or take an empty one: artifacts are written once, never over what is there.

    Raises:
        FileExistsError: something is in it.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    return folder
