"""Frozen dataclasses <-> CBOR items, driven by the annotations: one description, both directions.

A field's integer key is declared once, `field = keyed(3)`. Fields equal to their default are not written; keys that the
reader does not know are ignored, so an old agent reads a newer server and the reverse. Field types may be: int, float,
str, bytes, bool, a str-valued Enum, another keyed dataclass, `X | None`, `tuple[X, ...]`, and `Mapping[str, X]` or a
class of mappings that is made from one.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from fd_protocol.cbor import Item
from fd_protocol.errors import DecodeError, InvalidValueError

T = TypeVar("T")


def keyed(key: int, *, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that travels under the integer `key`."""
    return dataclasses.field(default=default, metadata={"key": key})


def to_item(value: Any) -> dict[int | str, Item]:
    """Return the map of a keyed dataclass instance, fields at their default left out."""
    item: dict[int | str, Item] = {}
    for plan in _plans[type(value)]:
        member = getattr(value, plan.name)
        if not plan.is_default(member):
            item[plan.key] = plan.form.lower(member)
    return item


def from_item(cls: type[T], item: Item) -> T:
    """Return the `cls` that `item` describes.

    Raises:
        DecodeError: `malformed` (a wrong shape or type), `unsupported` (a word that a newer peer may know), or
            `invalid` (the value refused to exist).
    """
    if type(item) is not dict:
        raise DecodeError("malformed", f"{cls.__name__} is not a map")
    fields: dict[str, Any] = {}
    for plan in _plans[cls]:
        if plan.key in item:
            fields[plan.name] = plan.form.lift(item[plan.key])
        elif plan.default is dataclasses.MISSING:
            raise DecodeError("malformed", f"{cls.__name__} lacks key {plan.key} ({plan.name})")
    try:
        return cls(**fields)
    except InvalidValueError as error:
        raise DecodeError("invalid", str(error)) from error


class _Form(NamedTuple):
    """A field type on the wire: value -> item, and item -> value or `DecodeError`."""

    lower: Callable[[Any], Item]
    lift: Callable[[Any], Any]


class _Plan(NamedTuple):
    name: str
    key: int
    default: Any
    form: _Form

    def is_default(self, value: Any) -> bool:
        # 0 == False == 0.0 in Python, not on the wire.
        return type(value) is type(self.default) and bool(value == self.default)


class _Plans(dict[Any, tuple[_Plan, ...]]):
    """The plan of each keyed dataclass, made when it is first asked for."""

    def __missing__(self, cls: Any) -> tuple[_Plan, ...]:
        hints = get_type_hints(cls)
        self[cls] = tuple(
            _Plan(f.name, f.metadata["key"], _default(f), _form(hints[f.name], f"{cls.__name__}.{f.name}"))
            for f in dataclasses.fields(cls)
        )
        if len({plan.key for plan in self[cls]}) < len(self[cls]):
            raise TypeError(f"{cls.__name__} uses a key twice")
        return self[cls]


_plans = _Plans()


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _form(hint: Any, where: str) -> _Form:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(_form(next(a for a in arguments if a is not types.NoneType), where))
    if origin is tuple:
        return _array(_form(arguments[0], where), where)
    if origin is not None and issubclass(origin, Mapping):
        return _table(_form(arguments[-1], where), dict if origin is Mapping else origin, where)
    if hint is float:
        # -0.0 equals 0.0, and equal values have equal bytes; adding 0.0 makes it 0.0.
        return _Form(lambda value: float(value) + 0.0, lambda item: _finite(item, where))
    if hint in (int, str, bytes, bool):
        return _Form(_same, lambda item: _checked(item, hint, where))
    if issubclass(hint, Enum):
        return _choice(hint, where)
    return _Form(to_item, lambda item: from_item(hint, item))


def _optional(form: _Form) -> _Form:
    return _Form(
        lambda value: None if value is None else form.lower(value),
        lambda item: None if item is None else form.lift(item),
    )


def _array(form: _Form, where: str) -> _Form:
    return _Form(
        lambda value: [form.lower(member) for member in value],
        lambda item: tuple(form.lift(member) for member in _checked(item, list, where)),
    )


def _table(form: _Form, made: Callable[[Mapping[str, Any]], Any], where: str) -> _Form:
    return _Form(
        lambda value: {key: form.lower(member) for key, member in value.items()},
        lambda item: made(
            {_checked(key, str, where): form.lift(member) for key, member in _checked(item, dict, where).items()}
        ),
    )


def _choice(enum: type[Enum], where: str) -> _Form:
    members = {member.value: member for member in enum}

    def lift(item: Any) -> Enum:
        if _checked(item, str, where) not in members:
            raise DecodeError("unsupported", f"{where}: {item!r}")
        return members[item]

    return _Form(lambda value: value.value, lift)


def _same(value: Item) -> Item:
    return value


def _checked(item: Any, cls: type, where: str) -> Any:
    if type(item) is not cls:
        raise DecodeError("malformed", f"{where}: expected {cls.__name__}, found {type(item).__name__}")
    return item


def _finite(item: Any, where: str) -> float:
    number: float = _checked(item, float, where)
    if not math.isfinite(number):
        raise DecodeError("malformed", f"{where}: expected a finite number")
    return number
