"""Every key of a program's settings, from the dataclasses that describe them: its type, its default, what it is for.

    keys_of(cls)           what a command line lists, gets and sets
    json_schema(cls, ...)  what an editor completes and checks; a program checks more
    explanations(cls, text)  the words about each key in the template that `init` writes

In a table of named tables (`Mapping`) the name is any: `sources.*.folder`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fd_runtime.config import not_none

ANY_NAME = "*"
_TYPES = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean"}
_WORDS = {str: "text", Path: "path", int: "integer", float: "number", bool: "true or false", Any: "anything"}
_SECTION = re.compile(r"(?:# )?\[([\w.-]+)\]")
_KEY = re.compile(r"(?:# )?(\w+) = (?:\"[^\"]*\"|[^#])*(?:# (.*))?$")
_MORE = re.compile(r"\s+# (.*)$")


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: dotted, with the sections that it stands in.
        hint: its annotation, without the None of an optional one.
        default: what stands there where nothing is said; None where that is nothing, or it must be said.
        is_required: where its section is there it must be said.
        metadata: of the dataclass field.
    """

    name: str
    hint: Any
    default: Any
    is_required: bool
    metadata: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What may stand there, in words."""
        return _kind(self.hint)


def keys_of(cls: Any) -> Iterator[Key]:
    """Yield every key of the settings `cls`, section by section, those of optional sections too."""
    yield from _keys(cls, "", None)


def explanations(cls: Any, template: str) -> dict[str, str]:
    """Return what a settings file with a comment behind every key says of each, by dotted name.

    A key or a section may be commented out; a comment may go on in the lines below, indented. Where any name may stand
    the file has an example.

    Args:
        cls: the settings.
        template: the file.
    """
    found = _behind_keys(template)
    return {key.name: text for key in keys_of(cls) if (text := _about(key.name, found))}


def _about(name: str, found: Mapping[str, str]) -> str:
    if ANY_NAME not in name:
        return found.get(name, "")
    pattern = re.compile(re.escape(name).replace(re.escape(ANY_NAME), "[^.]+"))
    return next((text for other, text in found.items() if text and pattern.fullmatch(other)), "")


def _behind_keys(template: str) -> dict[str, str]:
    found: dict[str, str] = {}
    section, last = "", ""
    for line in template.splitlines():
        if head := _SECTION.match(line):
            section, last = f"{head[1]}.", ""
        elif key := _KEY.match(line):
            last = section + key[1]
            found[last] = key[2] or ""
        elif last and (more := _MORE.match(line)):
            found[last] = f"{found[last]} {more[1]}".strip()
        else:
            last = ""
    return found


def json_schema(cls: Any, title: str, explained: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) of the settings `cls`: names, types, choices, defaults.

    Args:
        cls: the dataclass of the whole file.
        title: of the schema.
        explained: what each key is for, by dotted name.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return schema | _table(cls, "", explained or {})


def _keys(cls: Any, prefix: str, around: Any) -> Iterator[Key]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, hint = f"{prefix}{field.name}", not_none(hints[field.name])
        default = getattr(around, field.name) if around is not None else _default(field)
        if dataclasses.is_dataclass(hint):
            yield from _keys(hint, f"{name}.", default)
        elif (inner := _of_mapping(hint)) is not None and dataclasses.is_dataclass(inner):
            yield from _keys(inner, f"{name}.{ANY_NAME}.", None)
        else:
            yield Key(name, hint, default, _is_required(field), field.metadata)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _of_mapping(hint: Any) -> Any:
    origin = get_origin(hint)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return not_none(get_args(hint)[1]) if is_mapping else None


def _kind(hint: Any) -> str:
    if choices := _choices(hint):
        return " or ".join(map(str, choices))
    if get_origin(hint) is tuple:
        return f"list of {_kind(get_args(hint)[0])}"
    if (inner := _of_mapping(hint)) is not None:
        return f"table of {_kind(inner)}"
    return _WORDS.get(hint, str(hint))


def _choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return tuple(choice for part in get_args(hint) for choice in (_choices(part) or (part,)))
    return tuple(member.value for member in hint) if isinstance(hint, type) and issubclass(hint, Enum) else ()


def _table(cls: Any, prefix: str, explained: Mapping[str, str]) -> dict[str, Any]:
    hints, fields = get_type_hints(cls), dataclasses.fields(cls)
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if cls.__doc__:
        schema["description"] = " ".join(cls.__doc__.split("\n\n")[0].split())
    schema["properties"] = {
        field.name: _property(not_none(hints[field.name]), f"{prefix}{field.name}", field, explained)
        for field in fields
    }
    if required := [field.name for field in fields if _is_required(field)]:
        schema["required"] = required
    return schema


def _property(hint: Any, name: str, field: dataclasses.Field[Any], explained: Mapping[str, str]) -> dict[str, Any]:
    schema = _schema(hint, name, explained)
    if dataclasses.is_dataclass(hint):
        return schema
    default = _plain(_default(field))
    return (
        schema
        | ({"description": explained[name]} if explained.get(name) else {})
        | ({"default": default} if default not in (None, [], {}) else {})
    )


def _schema(hint: Any, name: str, explained: Mapping[str, str]) -> dict[str, Any]:
    if choices := _choices(hint):
        return {"enum": list(choices)}
    if dataclasses.is_dataclass(hint):
        return _table(hint, f"{name}.", explained)
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(not_none(get_args(hint)[0]), name, explained)}
    if (inner := _of_mapping(hint)) is not None:
        return {"type": "object", "additionalProperties": _schema(inner, f"{name}.{ANY_NAME}", explained)}
    return {} if hint is Any else {"type": _TYPES[hint]}


_PLAIN: Mapping[type, Callable[[Any], Any]] = {Path: str, tuple: list, dict: dict}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return next((turn(value) for cls, turn in _PLAIN.items() if isinstance(value, cls)), value)
