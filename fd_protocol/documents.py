"""Documents that people read, JSON and TOML, <-> frozen dataclasses, driven by the annotations.

Fields are the keys, defaults the defaults, nested dataclasses the tables, `__post_init__` the rules. Field types may
be: str, int, float, bool, an Enum, a Literal, another dataclass, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, and
Any for what only others can check.
Whoever reads a document may add types of its own (`Place.extra`), and take long lists from files (`Place.lines`). What
is wrong is told in one line: source, dotted key, problem.

The JSON of a value is deterministic (sorted keys, LF, no key for None, no -0.0) and the only one accepted for it, so
the digest of a document names the value.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from fd_protocol.errors import FedistillError, InvalidValueError, shown

T = TypeVar("T")
Extra = Mapping[Any, Callable[[Any], Any]]

LINES: Mapping[str, Any] = {"lines": True}
"""Metadata of a field whose list may stand in a file, a line an item, where the reader of a document allows it."""

MAX_JSON_BYTES = 1 << 20
_KEY_CHARACTERS = 80
"""Of a key that an error names; there may be any in a document."""
_NAMES = {str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "a table", list: "an array"}


class InvalidDocumentError(FedistillError):
    """A document is wrong at a key. Its text is one line: `manifest.json: task.classes: expected an array, ...`."""

    def __init__(self, source: object, key: str, problem: str) -> None:
        self.source, self.key, self.problem = str(source), key, problem
        super().__init__(": ".join(part for part in (self.source, key, problem) if part))


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in a document, and what an error about it is.

    Attributes:
        source: the document's name in errors.
        error: the type of errors.
        extra: readers of further field types, from the text that the document has for them.
        key: of the value.
        lines: returns the lines of the file that a text names, for fields with the metadata `LINES`; None: there the
            list itself must stand.
    """

    source: object
    error: type[InvalidDocumentError]
    extra: Extra = dataclasses.field(default_factory=dict)
    key: tuple[str, ...] = ()
    lines: Callable[[str], list[str]] | None = None

    def inside(self, name: str) -> Place:
        return dataclasses.replace(self, key=(*self.key, name))

    def fail(self, problem: str) -> NoReturn:
        raise self.error(self.source, ".".join(name[:_KEY_CHARACTERS] for name in self.key), problem)

    def expect(self, expected: str, found: Any) -> NoReturn:
        said = "" if isinstance(found, (dict, list)) else f" {shown(found)}"
        self.fail(f"expected {expected}, found {_NAMES.get(type(found), type(found).__name__)}{said}")


def build(cls: type[T], table: Any, place: Place) -> T:
    """Return the `cls` that `table` describes.

    Raises:
        InvalidDocumentError: of the place's type: a key is unknown, missing, of the wrong type, or refused.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    table = _typed(dict, table, place)
    for name in table:
        if name not in fields:
            place.inside(name).fail(f"unknown key{nearest(name, fields)}")
    for name, field in fields.items():
        if name not in table and _is_required(field):
            place.inside(name).fail("missing")
    hints = get_type_hints(cls)
    listed = {name: _listed(fields[name], value, place.inside(name)) for name, value in table.items()}
    values = {name: convert(hints[name], value, place.inside(name)) for name, value in listed.items()}
    try:
        return cls(**values)
    except InvalidValueError as error:
        place.fail(str(error))


def convert(hint: Any, value: Any, place: Place) -> Any:
    """Return the plain `value` as the annotation `hint` asks for it.

    Raises:
        InvalidDocumentError: of the place's type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint in place.extra:
        return place.extra[hint](_typed(str, value, place))
    if origin in (Union, types.UnionType):
        return convert(next(a for a in arguments if a is not types.NoneType), value, place)
    if origin is Literal:
        return _choice(arguments, value, place)
    if origin is tuple:
        items = _typed(list, value, place)
        return tuple(convert(arguments[0], item, place.inside(str(index))) for index, item in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        members = _typed(dict, value, place)
        return {name: convert(arguments[1], member, place.inside(name)) for name, member in members.items()}
    if dataclasses.is_dataclass(hint):
        return build(hint, value, place)  # type: ignore[arg-type]  # a type, as annotations are
    if issubclass(hint, Enum):
        return hint(_choice([member.value for member in hint], value, place))
    return _typed(hint, value, place)


def to_json(value: Any) -> bytes:
    """Return the one JSON document of a dataclass."""
    text = json.dumps(_plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def from_json(cls: type[T], data: bytes, place: Place) -> T:
    """Return the `cls` whose document `data` is.

    Raises:
        InvalidDocumentError: of the place's type; also where `data` is not byte for byte what `to_json` writes.
    """
    if len(data) > MAX_JSON_BYTES:
        place.fail(f"{len(data)} of at most {MAX_JSON_BYTES} bytes")
    try:
        plain = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        place.fail(f"not JSON: {error}")
    try:
        value = build(cls, plain, place)
        written = to_json(value)
    except ValueError as error:  # half a surrogate pair, a number of more digits than Python writes
        place.fail(str(error))
    if written != data:
        place.fail("not in the form that fedistill writes: sorted keys, one space of indent, nothing twice, no -0.0")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        pairs = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {name: _plain(member) for name, member in pairs if member is not None}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    if isinstance(value, Mapping):
        return {_plain(name): _plain(member) for name, member in value.items()}
    # -0.0 equals 0.0, and equal values have one document; adding 0.0 makes it 0.0.
    return value + 0.0 if isinstance(value, float) else value


def _listed(field: dataclasses.Field[Any], value: Any, place: Place) -> Any:
    """Return the value, or the lines of the file that it names."""
    if not isinstance(value, str) or place.lines is None or field.metadata != LINES:
        return value
    try:
        return place.lines(value)
    except (OSError, UnicodeDecodeError) as error:
        place.fail(f"{value!r} cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8'}")


def _typed(cls: Any, value: Any, place: Place) -> Any:
    if cls is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not cls or (cls is float and not math.isfinite(value)):
        place.expect(_NAMES[cls], value)
    return value


def _choice(choices: Iterable[Any], value: Any, place: Place) -> Any:
    if value not in choices:
        place.expect(f"one of {', '.join(map(repr, choices))}", value)
    return value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def nearest(name: str, names: Iterable[str]) -> str:
    """Return what to say of an unknown `name`, to follow `unknown key`: the nearest of `names`, else all of them."""
    import difflib  # noqa: PLC0415 - for the one message of a program that does not start

    near = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"
