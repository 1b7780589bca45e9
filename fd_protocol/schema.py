"""Frozen dataclasses <-> CBOR, driven by the annotations: one description, both directions.

A field's integer key is declared once, `field = keyed(3)`. Fields equal to their default are not written, and are read
where another writer did write them; keys that the reader does not know are ignored, so an old agent reads a newer
server and the reverse. Field types may be: int, float, str, bytes, bool, a str-valued Enum, another keyed dataclass,
`X | None`, `tuple[X, ...]`, and `Mapping[str, X]` or a class of mappings that is made from one.

How a class travels is worked out when it is first asked for. Bytes become fields and fields bytes without an item
between, for that is half of what a server does with a message.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from fd_protocol import cbor
from fd_protocol.cbor import MAX_ITEMS, Item, Reader, Room
from fd_protocol.errors import DecodeError, InvalidValueError, shown

T = TypeVar("T")
Writer: TypeAlias = Callable[[Any, list[bytes]], None]

_NUMBER = 0
"""The key of what tells messages apart."""
_REMEMBERED_BYTES = 256


def keyed(key: int, *, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that travels under the integer `key`."""
    return dataclasses.field(default=default, metadata={"key": key})


def encode(value: Any, *, number: int | None = None) -> bytes:
    """Return the map of a keyed dataclass instance, fields at their default left out, `number` under key 0."""
    out: list[bytes] = []
    _plans[type(value), number].write(value, out)
    return b"".join(out)


def decode(cls: type[T], data: bytes, *, number: int | None = None, max_items: int = MAX_ITEMS) -> T:
    """Return the `cls` that `data` describes.

    Raises:
        DecodeError: `malformed` (no such CBOR, a wrong shape or type), `foreign_kind` (another number under key 0),
            `unsupported` (a word that a newer peer may know), or `invalid` (the value refused to exist).
    """
    value: T = cbor.decode_by(_plans[cls, number].read, data, max_items)
    return value


def to_item(value: Any) -> dict[int | str, Item]:
    """Return the item that `encode` writes."""
    data = encode(value)
    item = cbor.decode(data, max_items=len(data))
    assert isinstance(item, dict)
    return item


def from_item(cls: type[T], item: Item) -> T:
    """Return the `cls` that `item` describes; raises as `decode` does."""
    data = cbor.encode(item)
    return decode(cls, data, max_items=len(data))


class _Form(NamedTuple):
    """A field type on the wire. Without a reader it is any item, of exactly the type `plain`."""

    write: Writer
    read: Reader | None = None
    plain: type | None = None


class _Field(NamedTuple):
    name: str
    key: int
    default: Any
    form: _Form


class _Plan:
    """How a keyed dataclass travels; a `number` travels with it under key 0."""

    def __init__(self, cls: Any, number: int | None) -> None:
        hints = get_type_hints(cls)
        fields = [_Field(f.name, f.metadata["key"], _default(f), _form(hints[f.name])) for f in dataclasses.fields(cls)]
        self._cls, self._number = cls, number
        self._names = {field.key: (field.name, field.form.plain) for field in fields}
        if len(self._names) < len(fields):
            raise TypeError(f"{cls.__name__} uses a key twice")
        fields.sort(key=lambda field: cbor.encode(field.key))
        self._members = _members(*(field.name for field in fields))
        self._writers = tuple(
            (cbor.encode(field.key), field.default, _kind(hints[field.name], field.default), field.form.write)
            for field in fields
        )
        self._readers: dict[int | str, Reader] = {}
        self._readers |= {field.key: field.form.read for field in fields if field.form.read is not None}
        self._required = frozenset(field.key for field in fields if field.default is dataclasses.MISSING)
        self._first = b""
        if number is not None:
            self._first = cbor.encode(_NUMBER) + cbor.encode(number)
            self._readers[_NUMBER] = self._read_number
            self._required |= {_NUMBER}

    def write(self, value: Any, out: list[bytes]) -> None:
        start, count = len(out), int(self._number is not None)
        out.append(b"")  # what stands first is known last: how many fields there are
        for (key, default, kind, write), member in zip(self._writers, self._members(value), strict=True):
            if member != default or (kind is not None and type(member) is not kind):
                out.append(key)
                write(member, out)
                count += 1
        out[start] = cbor.map_head(count) + self._first

    def read(self, data: bytes, at: int, room: Room) -> tuple[Any, int]:
        members, at = cbor.read_map(data, at, room, self._readers)
        if not self._required.issubset(members):
            lacking = min(self._required.difference(members))
            raise DecodeError("malformed", f"{self._cls.__name__} lacks key {lacking}")
        fields = {}
        for key, member in members.items():
            if key in self._names:
                name, plain = self._names[key]
                if plain is not None and type(member) is not plain:
                    found = f"expected {plain.__name__}, found {type(member).__name__}"
                    raise DecodeError("malformed", f"{self._cls.__name__}.{name}: {found}")
                fields[name] = member
        try:
            return self._cls(**fields), at
        except InvalidValueError as error:
            raise DecodeError("invalid", str(error)) from error

    def _read_number(self, data: bytes, at: int, room: Room) -> tuple[int, int]:
        found, at = _read_as(int, data, at, room)
        if found != self._number:
            raise DecodeError("foreign_kind", f"expected {self._cls.__name__}, found kind {found}")
        return found, at


class _Plans(dict[tuple[Any, "int | None"], _Plan]):
    """The plan of each class and number, made when it is first asked for."""

    def __missing__(self, which: tuple[Any, int | None]) -> _Plan:
        self[which] = plan = _Plan(*which)
        return plan


_plans = _Plans()


def _members(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _kind(hint: Any, default: Any) -> type | None:
    """Return the one type of values that equal a default on the wire, too; None: of any, for all travel as floats.

    0 == False == 0.0 in Python. In a field of floats they are one value, elsewhere three.
    """
    return None if float in (hint, type(default)) else type(default)


def _form(hint: Any) -> _Form:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(_form(next(a for a in arguments if a is not types.NoneType)))
    if origin is tuple:
        return _array(_form(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _table(_form(arguments[-1]), dict if origin is Mapping else origin)
    if hint is float:
        # -0.0 equals 0.0, and equal values have equal bytes; adding 0.0 makes it 0.0.
        return _Form(lambda value, out: cbor.write(float(value) + 0.0, out), _read_finite)
    if hint in (int, str, bytes, bool):
        return _Form(cbor.write, plain=hint)
    if issubclass(hint, Enum):
        return _choice(hint)
    return _nested(hint)


def _read_as(plain: type, data: bytes, at: int, room: Room) -> tuple[Any, int]:
    item, at = cbor.read(data, at, room)
    if type(item) is not plain:
        raise DecodeError("malformed", f"expected {plain.__name__}, found {type(item).__name__}")
    return item, at


def _reader(form: _Form) -> Reader:
    if form.read is not None:
        return form.read
    assert form.plain is not None
    return partial(_read_as, form.plain)


def _read_finite(data: bytes, at: int, room: Room) -> tuple[float, int]:
    number, at = _read_as(float, data, at, room)
    if not math.isfinite(number):
        raise DecodeError("malformed", "expected a finite number")
    return number, at


def _choice(enum: type[Enum]) -> _Form:
    encoded = {member: cbor.encode(member.value) for member in enum}
    members = {member.value: member for member in enum}

    def read(data: bytes, at: int, room: Room) -> tuple[Enum, int]:
        word, at = _read_as(str, data, at, room)
        if word not in members:
            raise DecodeError("unsupported", f"{enum.__name__}: {shown(word)}")
        return members[word], at

    return _Form(lambda value, out: out.append(encoded[value]), read)


def _nested(cls: Any) -> _Form:
    """A dataclass in a field: all messages of a round name the same round, and the same slice of the same probes.

    So the last one that was written or read is remembered, if it is small. Bytes that begin with its encoding begin
    with it and nothing else, for an encoding says itself where it ends.
    """
    written: tuple[Any, bytes] = (None, b"")
    known: tuple[bytes, Any, int, int] = (b"?", None, 0, -1)

    def write(value: Any, out: list[bytes]) -> None:
        nonlocal written
        last, encoded = written
        if value is not last:
            encoded = encode(value)
            written = (value, encoded) if len(encoded) <= _REMEMBERED_BYTES else written
        out.append(encoded)

    def read(data: bytes, at: int, room: Room) -> tuple[Any, int]:
        nonlocal known
        encoded, value, items, depth = known
        if depth == room.depth and data.startswith(encoded, at):
            room.take(items)
            return value, at + len(encoded)
        before = room.items
        value, end = _plans[cls, None].read(data, at, room)
        if end - at <= _REMEMBERED_BYTES:
            known = data[at:end], value, before - room.items, room.depth
        return value, end

    return _Form(write, read)


def _optional(form: _Form) -> _Form:
    read_other = _reader(form)

    def write(value: Any, out: list[bytes]) -> None:
        if value is None:
            cbor.write(None, out)
        else:
            form.write(value, out)

    def read(data: bytes, at: int, room: Room) -> tuple[Any, int]:
        return (None, at + 1) if data[at] == cbor.NULL else read_other(data, at, room)

    return _Form(write, read)


def _array(form: _Form) -> _Form:
    read_member = _reader(form)

    def write(value: tuple[Any, ...], out: list[bytes]) -> None:
        out.append(cbor.array_head(len(value)))
        for member in value:
            form.write(member, out)

    def read(data: bytes, at: int, room: Room) -> tuple[tuple[Any, ...], int]:
        members, at = cbor.read_array(data, at, room, read_member)
        return tuple(members), at

    return _Form(write, read)


def _table(form: _Form, made: Callable[[Mapping[str, Any]], Any]) -> _Form:
    read_member = _reader(form)

    def write(value: Mapping[str, Any], out: list[bytes]) -> None:
        out.append(cbor.map_head(len(value)))
        for key, member in sorted((cbor.encode(name), member) for name, member in value.items()):
            out.append(key)
            form.write(member, out)

    def read(data: bytes, at: int, room: Room) -> tuple[Any, int]:
        entries, at = cbor.read_map(data, at, room, {}, read_member)
        texts = {name: member for name, member in entries.items() if isinstance(name, str)}
        if len(texts) < len(entries):
            raise DecodeError("malformed", "a key is no text")
        return made(texts), at

    return _Form(write, read)
