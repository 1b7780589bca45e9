"""Settings of a program: a TOML file and the environment -> one frozen dataclass, or one line that says what is wrong.

The dataclass is the whole description (`fd_protocol.documents`); settings may also be a `Path`, and a relative one
counts from the file's folder. So does the file of a list that has one (`fd_protocol.documents.LINES`).

What overrides a key of the file is one text (`Override`): `FEDISTILL__SECTION__KEY=value` of the environment, or what a
program was told in another way. The text for a text, path or choice is taken as it stands, any other is read as TOML.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fd_protocol.documents import InvalidDocumentError, Place, build, convert, nearest
from fd_protocol.errors import DecodeError, DigestError, InvalidValueError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

ENVIRONMENT_PREFIX = "FEDISTILL__"

# sysexits.h: what a supervisor such as systemd may act on.
EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_SOFTWARE, EX_CANTCREAT = 64, 65, 69, 70, 73
EX_IOERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 74, 75, 77, 78
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (  # the first that fits; narrow before wide
    (PermissionError, EX_NOPERM),
    (ConnectionError, EX_UNAVAILABLE),
    (TimeoutError, EX_TEMPFAIL),
    (FileExistsError, EX_CANTCREAT),
    (NotADirectoryError, EX_CANTCREAT),
    (IsADirectoryError, EX_CANTCREAT),
    (OSError, EX_IOERR),
    (InvalidValueError, EX_CONFIG),
    (InvalidDocumentError, EX_DATAERR),
    (DigestError, EX_DATAERR),
    (DecodeError, EX_DATAERR),
)


class ConfigError(InvalidDocumentError):
    """A setting is wrong. Its text is one line: `agent.toml: broker.port: expected an integer, found text 'x'`."""

    exit_code = EX_CONFIG


def exit_code_for(error: BaseException) -> int:
    """Return the exit status (sysexits.h) that `error` ends a program with; an error may bring its own `exit_code`."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    return next((code for cls, code in _EXIT_CODES if isinstance(error, cls)), EX_SOFTWARE)


@dataclass(frozen=True, slots=True)
class Override:
    """`text` in the place of what the file says under the dotted `key`; errors about it name `source`."""

    source: str
    key: str
    text: str


def load_toml(
    path: Path, cls: type[T], environ: Mapping[str, str] = os.environ, overrides: Sequence[Override] = ()
) -> T:
    """Return the `cls` that the file at `path` describes; `overrides` win over it, and the environment over both.

    Raises:
        ConfigError: no such file, no TOML, a key that is unknown, missing, of the wrong type, or refused.
    """
    table = read_table(path)
    for override in (*overrides, *environment_overrides(environ)):
        _override(table, cls, override)
    return build(cls, table, _place(path, path.parent))


def build_settings(table: Any, cls: type[T], path: Path) -> T:
    """Return the `cls` that `table` describes, as the file at `path` would; raises as `load_toml`."""
    return build(cls, table, _place(path, path.parent))


def environment_overrides(environ: Mapping[str, str] = os.environ) -> tuple[Override, ...]:
    """Return what the environment overrides, in the order of names."""
    return tuple(
        Override(variable, variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), text)
        for variable, text in sorted(environ.items())
        if variable.startswith(ENVIRONMENT_PREFIX)
    )


def _place(source: Path | str, folder: Path) -> Place:
    def at(text: str) -> Path:
        return folder / Path(text).expanduser()

    return Place(source, ConfigError, {Path: at}, lines=lambda text: at(text).read_text("utf-8").splitlines())


def read_table(path: Path) -> dict[str, Any]:
    """Return what stands in the TOML file at `path`, unchecked.

    Raises:
        ConfigError: no such file, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(path, "", "no such file") from error
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8 or not TOML: both are ValueErrors that say where
        raise ConfigError(path, "", f"not TOML: {' '.join(str(error).split())}") from error


def value_of(cls: Any, key: str, text: str, source: object) -> Any:
    """Return `text` as TOML would have it under the dotted `key` of `cls`.

    Raises:
        ConfigError: about `source`; there is no such key, or the text is of the wrong type.
    """
    table: dict[str, Any] = {}
    _override(table, cls, Override(str(source), key, text))
    for name in key.split("."):
        table = table[name]
    return table


def _override(table: dict[str, Any], cls: Any, override: Override) -> None:
    """Set in `table` what an override says, after a look whether its type is right."""
    *sections, last = override.key.split(".")
    hint = cls
    place = _place(override.source, Path())
    for section in sections:
        hint, place = _member(hint, section, place), place.inside(section)
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            place.expect("a table", table)
    hint, place = _member(hint, last, place), place.inside(last)
    table[last] = _value(hint, override.text, place)
    convert(hint, table[last], place)


def _member(hint: Any, name: str, place: Place) -> Any:
    """Return the type of `name` in a table of type `hint`."""
    if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        return get_args(hint)[1]
    members = get_type_hints(hint) if is_dataclass(hint) else {}
    if name not in members:
        place.inside(name).fail(f"unknown key{nearest(name, members) if members else ''}")
    return not_none(members[name])


def _value(hint: Any, text: str, place: Place) -> Any:
    if hint in (str, Path) or get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return text
    try:
        return toml_value(text)
    except InvalidValueError as error:
        place.fail(str(error))


def toml_value(text: str) -> Any:
    """Return the value that stands as `text` in TOML: 7, 0.5, true, "word".

    Raises:
        InvalidValueError: none does.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise InvalidValueError(f"{text!r} is not a TOML value") from error


def not_none(hint: Any) -> Any:
    """Return X of `X | None`; any other annotation as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(argument for argument in get_args(hint) if argument is not types.NoneType)
    return hint
