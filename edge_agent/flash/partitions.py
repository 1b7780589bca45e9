"""Where the file systems of an image lie: its partition table, MBR or GPT, and what each partition begins with.

A partition's kind is told by its first bytes, not by the number in the table: of these there are several for FAT alone.

What is deliberately absent: logical partitions, sectors of other than 512 bytes; no image of a card has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from edge_agent.flash.errors import NotRecognisedError

SECTOR = 512
_BOOT_SIGNATURE = b"\x55\xaa"
_TABLE, _ENTRY = 446, struct.Struct("<BxxxBxxxII")
_PROTECTIVE = 0xEE
_GPT = struct.Struct("<8s64xQII")
_GPT_MAGIC = b"EFI PART"
_GPT_ENTRY = struct.Struct("<16s16sQQ")
_EXT_MAGIC_AT, _EXT_MAGIC = 1024 + 56, b"\x53\xef"


class Kind(Enum):
    """What a partition begins with."""

    FAT = "FAT"
    EXT = "ext4"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of an image: `size` bytes from byte `start`; `number` as in the table, from 1."""

    number: int
    start: int
    size: int
    kind: Kind

    @property
    def end(self) -> int:
        return self.start + self.size


def partitions(image: Path) -> tuple[Partition, ...]:
    """Return the partitions of an image, or of a card, in the order of the table.

    Raises:
        NotRecognisedError: there is no table, or it points past the end.
    """
    with image.open("rb") as file:
        size = file.seek(0, 2)
        found = tuple(
            Partition(number, start, length, _kind(file, start)) for number, start, length in _entries(file, image)
        )
    for one in found:
        if one.end > size:
            raise NotRecognisedError(f"{image}: partition {one.number} ends past the file: a part of it is missing")
    return found


def _entries(file: BinaryIO, image: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (number, first byte, bytes)."""
    sector = _read(file, 0, SECTOR)
    if sector[510:512] != _BOOT_SIGNATURE or _is_fat(sector):
        raise NotRecognisedError(f"{image}: no partition table: not an image of a whole card")
    entries = [_ENTRY.unpack_from(sector, _TABLE + _ENTRY.size * index) for index in range(4)]
    if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
        yield from _gpt_entries(file, image)
        return
    for index, (_, kind, start, sectors) in enumerate(entries):
        if kind and sectors:
            yield index + 1, start * SECTOR, sectors * SECTOR


def _gpt_entries(file: BinaryIO, image: Path) -> Iterator[tuple[int, int, int]]:
    magic, table, count, entry_bytes = _GPT.unpack_from(_read(file, SECTOR, SECTOR))
    if magic != _GPT_MAGIC or entry_bytes < _GPT_ENTRY.size or count > 4096:
        raise NotRecognisedError(f"{image}: its GUID partition table is damaged")
    for index in range(count):
        kind, _, first, last = _GPT_ENTRY.unpack(_read(file, table * SECTOR + entry_bytes * index, _GPT_ENTRY.size))
        if any(kind):
            yield index + 1, first * SECTOR, (last - first + 1) * SECTOR


def _kind(file: BinaryIO, start: int) -> Kind:
    head = _read(file, start, _EXT_MAGIC_AT + 2)
    if _is_fat(head):
        return Kind.FAT
    return Kind.EXT if head[_EXT_MAGIC_AT:] == _EXT_MAGIC else Kind.OTHER


def _is_fat(head: bytes) -> bool:
    return head[82:87] == b"FAT32" or head[54:58] == b"FAT1"


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    """Return `count` bytes, zeros where the file ends before."""
    file.seek(start)
    return file.read(count).ljust(count, b"\0")
