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
_FLOAT64 = _SIMPLE << 5 | 27
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
    _encode(item, out)
    return bytes(out)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return _HEADS[major << 5 | value]
    for info in range(24, 28):
        width = 1 << info - 24
        if value < 1 << 8 * width:
            return _HEADS[major << 5 | info] + value.to_bytes(width, "big")
    raise InvalidValueError(f"{value} does not fit 64 bits")


def _encode(item: object, out: bytearray) -> None:
    writer = _WRITERS.get(type(item))
    if writer is None:
        raise InvalidValueError(f"{type(item).__name__} has no CBOR form here")
    writer(item, out)


def _write_map(item: dict[object, object], out: bytearray) -> None:
    out += _head(_MAP, len(item))
    for key, value in sorted([(_key(key), value) for key, value in item.items()], key=_first):
        out += key
        _encode(value, out)


def _write_array(item: Sequence[object], out: bytearray) -> None:
    out += _head(_ARRAY, len(item))
    for element in item:
        _encode(element, out)


def _write_float(item: float, out: bytearray) -> None:
    out.append(_FLOAT64)
    out += _NAN if math.isnan(item) else _DOUBLE.pack(item)


def _integer(item: int) -> bytes:
    return _head(_UINT, item) if item >= 0 else _head(_NEGATIVE, -1 - item)


_WRITERS: Mapping[type, Callable[[Any, bytearray], None]] = {
    int: lambda item, out: out.extend(_integer(item)),
    bytes: lambda item, out: out.extend(_head(_BYTES, len(item)) + item),
    str: lambda item, out: out.extend(_text(item)),
    dict: _write_map,
    list: _write_array,
    tuple: _write_array,
    float: _write_float,
    bool: lambda item, out: out.append(_TRUE if item else _FALSE),
    type(None): lambda _item, out: out.append(_NULL),
}
"""By exact type: a server encodes for every message and event, and asks nine questions of none of them."""


def _text(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError("text with half a surrogate pair") from error
    return _head(_TEXT, len(data)) + data


@lru_cache(1024, typed=True)
def _known_key(key: int | str) -> bytes:
    return _text(key) if isinstance(key, str) else _integer(key)


def _key(key: object) -> bytes:
    if type(key) is int or type(key) is str:
        return _known_key(key)
    raise InvalidValueError(f"a map key is neither integer nor text but {type(key).__name__}")


def decode(data: bytes, *, max_items: int = MAX_ITEMS) -> Item:
    """Return the item that `data` encodes.

    Work and memory are bounded by `len(data)`: nothing is set aside for a length before its bytes are there. A peer's
    message keeps to `MAX_ITEMS`; our own journal may hold as many items as it has bytes.

    Raises:
        DecodeError: anything but exactly one item in the deterministic subset (reason `malformed`).
    """
    reader = _Reader(data, max_items)
    item = reader.item(depth=0)
    if reader.position != len(data):
        raise DecodeError("malformed", "bytes after the item")
    return item


class _Reader:
    __slots__ = ("data", "items_left", "position")

    def __init__(self, data: bytes, max_items: int) -> None:
        self.data = data
        self.items_left = max_items
        self.position = 0

    def item(self, depth: int) -> Item:
        if self.position == len(self.data):
            raise DecodeError("malformed", "cut short")
        byte = self.data[self.position]
        self.position += 1
        if byte < 24:
            return byte
        major, info = byte >> 5, byte & 31
        if major == _SIMPLE:
            return self.simple(byte)
        argument = info if info < 24 else self.argument(info)
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            return self.text(argument)
        if major == _MAP:
            self.enter(2 * argument, depth)
            return self.map(argument, depth + 1)
        if major == _ARRAY:
            self.enter(argument, depth)
            return [self.item(depth + 1) for _ in range(argument)]
        if major == _TAG:
            raise DecodeError("malformed", "tags are not part of the protocol")
        return argument if major == _UINT else -1 - argument

    def take(self, count: int) -> bytes:
        start, end = self.position, self.position + count
        if end > len(self.data):
            raise DecodeError("malformed", "cut short")
        self.position = end
        return self.data[start:end]

    def argument(self, info: int) -> int:
        """Read the 1, 2, 4 or 8 bytes that `info` announces."""
        if info > 27:
            raise DecodeError("malformed", "indefinite or reserved length")
        width = 1 << info - 24
        argument = int.from_bytes(self.take(width), "big")
        if argument < (24 if width == 1 else 1 << 4 * width):
            raise DecodeError("malformed", "not the shortest form")
        return argument

    def enter(self, items: int, depth: int) -> None:
        """Refuse a container that is nested too deep or has too many items; of few, the first one missing is told."""
        self.items_left -= items
        if depth >= MAX_DEPTH or self.items_left < 0:
            raise DecodeError("malformed", "nested too deep or too many items")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise DecodeError("malformed", "text is not UTF-8") from error

    def map(self, count: int, depth: int) -> dict[int | str, Item]:
        result: dict[int | str, Item] = {}
        previous = b""
        for _ in range(count):
            start = self.position
            key = self.item(depth)
            if type(key) is not int and type(key) is not str:
                raise DecodeError("malformed", "a map key is neither integer nor text")
            encoded = self.data[start : self.position]
            if encoded <= previous:
                raise DecodeError("malformed", "map keys repeat or are not sorted")
            previous = encoded
            result[key] = self.item(depth)
        return result

    def simple(self, byte: int) -> Item:
        if byte == _FALSE:
            return False
        if byte == _TRUE:
            return True
        if byte == _NULL:
            return None
        if byte == _FLOAT64:
            return self.float64()
        raise DecodeError("malformed", "not a simple value of the protocol")

    def float64(self) -> float:
        data = self.take(8)
        (value,) = _DOUBLE.unpack(data)
        if math.isnan(value) and data != _NAN:
            raise DecodeError("malformed", "a NaN other than the one")
        return float(value)
