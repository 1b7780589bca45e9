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
_FALSE, _TRUE, _NULL = (_SIMPLE << 5 | value for value in (20, 21, 22))
_SIMPLES: Mapping[int, bool | None] = {_FALSE: False, _TRUE: True, _NULL: None}
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
    out = bytearray()
    _WRITERS[type(item)](item, out)
    return bytes(out)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return _HEADS[major << 5 | value]
    if value < 256:
        return bytes((major << 5 | 24, value))
    for info, (width, _) in _ARGUMENTS.items():
        if value < 1 << 8 * width:
            return _HEADS[major << 5 | info] + value.to_bytes(width, "big")
    raise InvalidValueError(f"{value} does not fit 64 bits")


def _write_map(item: dict[object, object], out: bytearray) -> None:
    out += _head(_MAP, len(item))
    for key, value in sorted([(_key(key), value) for key, value in item.items()], key=_first):
        out += key
        _WRITERS[type(value)](value, out)


def _write_array(item: Sequence[object], out: bytearray) -> None:
    out += _head(_ARRAY, len(item))
    for element in item:
        _WRITERS[type(element)](element, out)


def _write_integer(item: int, out: bytearray) -> None:
    if 0 <= item < 24:
        out.append(item)
        return
    out += _head(_UINT, item) if item >= 0 else _head(_NEGATIVE, -1 - item)


def _write_bytes(item: bytes, out: bytearray) -> None:
    out += _head(_BYTES, len(item))
    out += item


def _write_text(item: str, out: bytearray) -> None:
    try:
        data = item.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError("text with half a surrogate pair") from error
    out += _head(_TEXT, len(data))
    out += data


def _write_float(item: float, out: bytearray) -> None:
    out.append(_FLOAT64)
    out += _NAN if math.isnan(item) else _DOUBLE.pack(item)


class _Writers(dict[type, Callable[[Any, bytearray], None]]):
    """By exact type: a server encodes for every message and event, and asks nine questions of none of them."""

    def __missing__(self, cls: type) -> Callable[[Any, bytearray], None]:
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
        bool: lambda item, out: out.append(_TRUE if item else _FALSE),
        type(None): lambda _item, out: out.append(_NULL),
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
    """Return the item that `data` encodes.

    Work and memory are bounded by `len(data)`: nothing is set aside for a length before its bytes are there. A peer's
    message keeps to `MAX_ITEMS`; our own journal may hold as many items as it has bytes.

    Raises:
        DecodeError: anything but exactly one item in the deterministic subset (reason `malformed`).
    """
    try:
        item, end = _read(data, 0, _Room(max_items), depth=0)
    except IndexError as error:  # looked for a byte behind the last one
        raise DecodeError("malformed", "cut short") from error
    if end != len(data):
        raise DecodeError("malformed", "bytes after the item")
    return item


class _Room:
    """How many items may still come."""

    __slots__ = ("items",)

    def __init__(self, items: int) -> None:
        self.items = items

    def enter(self, items: int, depth: int) -> None:
        """Refuse a container that is nested too deep or has too many items; of few, the first one missing is told."""
        self.items -= items
        if depth >= MAX_DEPTH or self.items < 0:
            raise DecodeError("malformed", "nested too deep or too many items")


def _read(data: bytes, at: int, room: _Room, depth: int) -> tuple[Item, int]:
    """Return the item that begins at `at`, and where it ends."""
    byte = data[at]
    at += 1
    if byte < 24:
        return byte, at
    major, argument = byte >> 5, byte & 31
    if major == _SIMPLE:
        return _read_simple(data, at, byte)
    if argument >= 24:
        argument, at = _read_argument(data, at, argument)
    if major == _BYTES:
        return _take(data, at, argument), at + argument
    if major == _TEXT:
        return _text_of(_take(data, at, argument)), at + argument
    if major == _MAP:
        return _read_map(data, at, argument, room, depth)
    if major == _ARRAY:
        return _read_array(data, at, argument, room, depth)
    if major == _TAG:
        raise DecodeError("malformed", "tags are not part of the protocol")
    return argument if major == _UINT else -1 - argument, at


def _read_argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """Read the 1, 2, 4 or 8 bytes that `info` announces."""
    if info > 27:
        raise DecodeError("malformed", "indefinite or reserved length")
    width, least = _ARGUMENTS[info]
    argument = int.from_bytes(_take(data, at, width), "big")
    if argument < least:
        raise DecodeError("malformed", "not the shortest form")
    return argument, at + width


def _take(data: bytes, at: int, count: int) -> bytes:
    taken = data[at : at + count]
    if len(taken) < count:
        raise DecodeError("malformed", "cut short")
    return taken


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("malformed", "text is not UTF-8") from error


def _read_array(data: bytes, at: int, count: int, room: _Room, depth: int) -> tuple[Item, int]:
    room.enter(count, depth)
    result: list[Item] = []
    for _ in range(count):
        item, at = _read(data, at, room, depth + 1)
        result.append(item)
    return result, at


def _read_map(data: bytes, at: int, count: int, room: _Room, depth: int) -> tuple[Item, int]:
    room.enter(2 * count, depth)
    result: dict[int | str, Item] = {}
    previous = b""
    for _ in range(count):
        start = at
        key, at = (data[at], at + 1) if data[at] < 24 else _read_key(data, at, room, depth + 1)
        encoded = data[start:at]
        if encoded <= previous:
            raise DecodeError("malformed", "map keys repeat or are not sorted")
        previous = encoded
        result[key], at = _read(data, at, room, depth + 1)
    return result, at


def _read_key(data: bytes, at: int, room: _Room, depth: int) -> tuple[int | str, int]:
    key, at = _read(data, at, room, depth)
    if type(key) is int or type(key) is str:
        return key, at
    raise DecodeError("malformed", "a map key is neither integer nor text")


def _read_simple(data: bytes, at: int, byte: int) -> tuple[Item, int]:
    if byte == _FLOAT64:
        return _float_of(_take(data, at, 8)), at + 8
    if byte not in _SIMPLES:
        raise DecodeError("malformed", "not a simple value of the protocol")
    return _SIMPLES[byte], at


def _float_of(data: bytes) -> float:
    (value,) = _DOUBLE.unpack(data)
    if math.isnan(value) and data != _NAN:
        raise DecodeError("malformed", "a NaN other than the one")
    return float(value)
