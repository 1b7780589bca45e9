"""May this disk be written over? Only one that is a card: removable, mounted nowhere, large enough.

    not a whole disk, or with the running system on it     never
    mounted, in use, or built in                           when told twice
    too small for the image                                never

A slot for SD cards on the board calls its cards not removable; the kernel's name for their type tells them. What sysfs
says is read below `sys`, what is mounted from `mounts` and `swaps`: as the kernel writes them.
"""

from __future__ import annotations

import os
import stat
import sys as system
from dataclasses import dataclass
from pathlib import Path

from edge_agent.flash.errors import NoRoomError, RefusedError

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where this machine's kernel tells of disks."""

    sys: Path = Path("/sys")
    mounts: Path = Path("/proc/self/mountinfo")
    swaps: Path = Path("/proc/swaps")


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as the kernel knows it.

    Attributes:
        path: its device file.
        model: what its maker calls it; may be empty.
        size: in bytes.
        is_card: can be taken out.
        mounted: where it, or a part of it, is mounted or used.
    """

    path: Path
    model: str
    size: int
    is_card: bool
    mounted: tuple[str, ...]


def look_at_disk(path: Path, kernel: Kernel = Kernel(), number: tuple[int, int] | None = None) -> Disk:
    """Return the disk at `path`.

    Args:
        path: a device file.
        kernel: who tells of it.
        number: of the device, major and minor; None = that of the file.

    Raises:
        RefusedError: not a whole disk, or this system does not tell.
    """
    if not system.platform.startswith("linux"):
        raise RefusedError(
            f"{path}: cards are written on Linux alone; make an image with --out, and write that by Imager"
        )
    major, minor = number or _number(path)
    folder = kernel.sys / "dev/block" / f"{major}:{minor}"
    if not folder.exists():
        raise RefusedError(f"{path}: the kernel knows no such disk")
    if (folder / "partition").exists():
        raise RefusedError(f"{path}: is a partition; name the whole disk")
    numbers = {f"{major}:{minor}"} | {(part.parent / "dev").read_text().strip() for part in folder.glob("*/partition")}
    used = [*_mounted(kernel, numbers), *_held(folder)]
    return Disk(
        path=path,
        model=" ".join(_text(folder / "device/model").split() or _text(folder / "device/name").split()),
        size=int(_text(folder / "size") or 0) * _SECTOR,
        is_card=_text(folder / "removable") == "1" or _text(folder / "device/type") == "SD",
        mounted=tuple(used),
    )


def check_may_be_written(disk: Disk, size: int, *, told_twice: Path | None) -> None:
    """Let a card pass that holds `size` bytes.

    told_twice: the disk's name once more, by whoever means it; None = they did not say.

    Raises:
        RefusedError: a disk of another kind, and not told twice; or the system's own.
        NoRoomError: it is too small.
    """
    if any(place in ("/", "/boot", "/usr", "swap") for place in disk.mounted):
        raise RefusedError(f"{disk.path}: this machine runs from it ({', '.join(disk.mounted)})")
    if disk.size < size:
        raise NoRoomError(str(disk.path), size, disk.size)
    if told_twice is not None and told_twice != disk.path:
        raise RefusedError(f"--overwrite {told_twice}, but --to {disk.path}: which one?")
    if told_twice is None:
        again = f"to write over it all the same say --overwrite {disk.path}"
        if disk.mounted:
            raise RefusedError(f"{disk.path}: is in use ({', '.join(disk.mounted)}): unmount it; {again}")
        if not disk.is_card:
            raise RefusedError(
                f"{disk.path}: is built in, {disk.size / 1e9:.0f} GB {disk.model}".rstrip() + f"; {again}"
            )


def _number(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RefusedError(f"{path}: no such disk") from error
    if not stat.S_ISBLK(status.st_mode):
        raise RefusedError(f"{path}: is no disk; --out FILE writes a file")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _mounted(kernel: Kernel, numbers: set[str]) -> list[str]:
    """Return where devices of these numbers are mounted. Field 3 of mountinfo is the number, 5 the place (proc(5))."""
    rows = [line.split() for line in kernel.mounts.read_text().splitlines()]
    places = [row[4].encode().decode("unicode_escape") for row in rows if len(row) > 4 and row[2] in numbers]
    names = {_name(kernel.sys, number) for number in numbers}
    swaps = [line.split()[0] for line in _text(kernel.swaps).splitlines()[1:]]
    return sorted(set(places)) + ["swap" for swap in swaps if Path(swap).name in names]


def _name(sys: Path, number: str) -> str:
    return (sys / "dev/block" / number).resolve().name


def _held(folder: Path) -> list[str]:
    """Return who else stands on a disk or its parts: device-mapper, RAID."""
    holders = [*folder.glob("holders/*"), *folder.glob("*/holders/*")]
    return sorted(f"held by {holder.name}" for holder in holders)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
