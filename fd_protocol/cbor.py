"""A strict, deterministic subset of CBOR (RFC 8949), enough for fedistill and nothing more.

Items: integers of 64 bits, float64, byte strings, text, arrays, maps with integer or text keys, true, false, null.
Rules (RFC 8949 section 4.2.1): shortest heads, definite lengths, map keys sorted by their encoding and unique, nothing
after the item; floats have 64 bits always (section 4.2.2) and NaN has one form. One value has one encoding, so digests
over encodings are stable.

Absent on purpose: tags, indefinite lengths, half and single floats, big numbers, shared references. A general decoder
builds regexes, dates and cycles from a peer's bytes; this one cannot.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from fd_protocol.errors import DecodeError, InvalidValueError

Item: TypeAlias = "int | float | bytes | str | bool | list[Item] | dict[int | str, Item] | None"

MAX_DEPTH = 8
MAX_ITEMS = 65_536
"""Containers and scalars in one message; bodies are byte strings, so a real message has fewer than a thousand."""

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FALSE, _TRUE, NULL = (_SIMPLE << 5 | value for value in (20, 21, 22))
_SIMPLES: Mapping[int, bool | None] = {_FALSE: False, _TRUE: True, NULL: None}
_FLOAT64 = _SIMPLE << 5 | 27
_ARGUMENTS = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}
"""Additional information of a head -> (bytes that follow it, the least number that needs so many)."""
_NAN = bytes.fromhex("7ff8000000000000")
_DOUBLE = struct.Struct(">d")
_HEADS = tuple(bytes((byte,)) for byte in range(256))
_first = itemgetter(0)


def encode(item: object) -> bytes:
    """Return the one encoding of `item` (tuples count as arrays).

    Raises:
        InvalidValueError: the item holds something outside the subset.
    """
    out: list[bytes] = []
    write(item, out)
    return b"".join(out)


def write(item: object, out: list[bytes]) -> None:
    """Add the pieces of the encoding of `item` to `out`.

    Raises:
        InvalidValueError: as `encode` does; then `out` holds half of it.
    """
    _WRITERS[type(item)](item, out)


def map_head(count: int) -> bytes:
    """Return what comes before the `count` entries of a map."""
    return _head(_MAP, count)


def array_head(count: int) -> bytes:
    """Return what comes before the `count` members of an array."""
    return _head(_ARRAY, count)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return _HEADS[major << 5 | value]
    if value < 256:
        return bytes((major << 5 | 24, value))
    for info, (width, _) in _ARGUMENTS.items():
        if value < 1 << 8 * width:
            return _HEADS[major << 5 | info] + value.to_bytes(width, "big")
    raise InvalidValueError(f"{value} does not fit 64 bits")


def _write_map(item: dict[object, object], out: list[bytes]) -> None:
    out.append(_head(_MAP, len(item)))
    for key, value in sorted([(_key(key), value) for key, value in item.items()], key=_first):
        out.append(key)
        _WRITERS[type(value)](value, out)


def _write_array(item: Sequence[object], out: list[bytes]) -> None:
    out.append(_head(_ARRAY, len(item)))
    for element in item:
        _WRITERS[type(element)](element, out)


def _write_integer(item: int, out: list[bytes]) -> None:
    out.append(_head(_UINT, item) if item >= 0 else _head(_NEGATIVE, -1 - item))


def _write_bytes(item: bytes, out: list[bytes]) -> None:
    out.append(_head(_BYTES, len(item)))
    out.append(item)


def _write_text(item: str, out: list[bytes]) -> None:
    try:
        data = item.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError("text with half a surrogate pair") from error
    out.append(_head(_TEXT, len(data)))
    out.append(data)


def _write_float(item: float, out: list[bytes]) -> None:
    out.append(_HEADS[_FLOAT64])
    out.append(_NAN if math.isnan(item) else _DOUBLE.pack(item))


class _Writers(dict[type, Callable[[Any, list[bytes]], None]]):
    """By exact type: a server encodes for every message and event, and asks nine questions of none of them."""

    def __missing__(self, cls: type) -> Callable[[Any, list[bytes]], None]:
        raise InvalidValueError(f"{cls.__name__} has no CBOR form here")


_WRITERS = _Writers(
    {
        int: _write_integer,
        bytes: _write_bytes,
        str: _write_text,
        dict: _write_map,
        list: _write_array,
        tuple: _write_array,
        float: _write_float,
        bool: lambda item, out: out.append(_HEADS[_TRUE if item else _FALSE]),
        type(None): lambda _item, out: out.append(_HEADS[NULL]),
    }
)


def _key(key: object) -> bytes:
    if type(key) is int and 0 <= key < 24:  # as nearly all keys are
        return _HEADS[key]
    if type(key) is int or type(key) is str:
        return _long_key(key)
    raise InvalidValueError(f"a map key is neither integer nor text but {type(key).__name__}")


@lru_cache(1024, typed=True)
def _long_key(key: int | str) -> bytes:
    return encode(key)


def decode(data: bytes, *, max_items: int = MAX_ITEMS) -> Item:
    """Return the item that `data` encodes; see `decode_by`."""
    item: Item = decode_by(read, data, max_items)
    return item


def decode_by(reader: Reader, data: bytes, max_items: int = MAX_ITEMS) -> Any:
    """Return what `reader` reads, where that is all of `data`.

    Work and memory are bounded by `len(data)`: nothing is set aside for a length before its bytes are there. A peer's
    message keeps to `MAX_ITEMS`; our own journal may hold as many items as it has bytes.

    Raises:
        DecodeError: anything but exactly one item in the deterministic subset (reason `malformed`).
    """
    try:
        item, end = reader(data, 0, Room(max_items))
    except IndexError as error:  # looked for a byte behind the last one
        raise DecodeError("malformed", "cut short") from error
    if end != len(data):
        raise DecodeError("malformed", "bytes after the item")
    return item


class Room:
    """How many items may still come, and how deep in containers a reader is."""

    __slots__ = ("depth", "items")

    def __init__(self, items: int) -> None:
        self.items, self.depth = items, 0

    def enter(self, items: int) -> None:
        """Refuse a container that is nested too deep or has too many items; of few, the first one missing is told."""
        self.items -= items
        self.depth += 1
        if self.items < 0 or self.depth > MAX_DEPTH:
            raise DecodeError("malformed", "nested too deep or too many items")

    def leave(self) -> None:
        self.depth -= 1

    def take(self, items: int) -> None:
        """Refuse more items than may come."""
        self.items -= items
        if self.items < 0:
            raise DecodeError("malformed", "too many items")


def read(data: bytes, at: int, room: Room) -> tuple[Item, int]:
    """Return the item that begins at `at`, and where it ends; a `Reader` of anything."""
    byte = data[at]
    if byte < 24:
        return byte, at + 1
    major = byte >> 5
    if major > _TEXT:
        return _READERS[major](data, at, room)
    argument, at = (byte & 31, at + 1) if byte & 31 < 24 else _read_argument(data, at + 1, byte & 31)
    if major < _BYTES:
        return argument if major == _UINT else -1 - argument, at
    end = at + argument
    if end > len(data):
        raise DecodeError("malformed", "cut short")
    return data[at:end] if major == _BYTES else _text_of(data[at:end]), end


def read_array(data: bytes, at: int, room: Room, reader: Reader) -> tuple[list[Any], int]:
    """Read the array that begins at `at`, its members by `reader`."""
    count, at = _read_head(data, at, _ARRAY)
    room.enter(count)
    members = []
    for _ in range(count):
        member, at = reader(data, at, room)
        members.append(member)
    room.leave()
    return members, at


def read_map(
    data: bytes, at: int, room: Room, readers: Readers, other: Reader = read
) -> tuple[dict[int | str, Any], int]:
    """Read the map that begins at `at`: the values under keys that have a reader by that one, else by `other`."""
    count, at = _read_head(data, at, _MAP)
    room.enter(2 * count)
    entries: dict[int | str, Any] = {}
    previous = b""
    for _ in range(count):
        start = at
        key, at = (data[at], at + 1) if data[at] < 24 else _read_key(data, at, room)
        encoded = data[start:at]
        if encoded <= previous:
            raise DecodeError("malformed", "map keys repeat or are not sorted")
        previous = encoded
        entries[key], at = readers.get(key, other)(data, at, room)
    room.leave()
    return entries, at


def _read_key(data: bytes, at: int, room: Room) -> tuple[int | str, int]:
    key, at = read(data, at, room)
    if type(key) is int or type(key) is str:
        return key, at
    raise DecodeError("malformed", "a map key is neither integer nor text")


def _read_head(data: bytes, at: int, major: int) -> tuple[int, int]:
    """Return the argument of the head at `at`, which must be of type `major`."""
    byte = data[at]
    if byte >> 5 != major:
        raise DecodeError("malformed", f"found major type {byte >> 5}, expected {major}")
    return (byte & 31, at + 1) if byte & 31 < 24 else _read_argument(data, at + 1, byte & 31)


def _read_argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """Read the 1, 2, 4 or 8 bytes that `info` announces."""
    if info > 27:
        raise DecodeError("malformed", "indefinite or reserved length")
    width, least = _ARGUMENTS[info]
    end = at + width
    if end > len(data):
        raise DecodeError("malformed", "cut short")
    argument = int.from_bytes(data[at:end], "big")
    if argument < least:
        raise DecodeError("malformed", "not the shortest form")
    return argument, end


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("malformed", "text is not UTF-8") from error


def _read_simple(data: bytes, at: int, _room: Room) -> tuple[Item, int]:
    byte, at = data[at], at + 1
    if byte == _FLOAT64:
        return _float_of(data[at : at + 8]), at + 8
    if byte not in _SIMPLES:
        raise DecodeError("malformed", "not a simple value of the protocol")
    return _SIMPLES[byte], at


def _read_tag(_data: bytes, _at: int, _room: Room) -> tuple[Item, int]:
    raise DecodeError("malformed", "tags are not part of the protocol")


def _float_of(data: bytes) -> float:
    if len(data) < _DOUBLE.size:
        raise DecodeError("malformed", "cut short")
    (value,) = _DOUBLE.unpack(data)
    if math.isnan(value) and data != _NAN:
        raise DecodeError("malformed", "a NaN other than the one")
    return float(value)


Reader: TypeAlias = Callable[[bytes, int, Room], tuple[Any, int]]
"""Reads what begins at an offset: the value, and where it ends. An `IndexError` means that the bytes are cut short."""
Readers: TypeAlias = Mapping["int | str", Reader]
_READERS: Mapping[int, Reader] = {
    _ARRAY: lambda data, at, room: read_array(data, at, room, read),
    _MAP: lambda data, at, room: read_map(data, at, room, {}),
    _TAG: _read_tag,
    _SIMPLE: _read_simple,
}
"""Of what is no number and no string."""
