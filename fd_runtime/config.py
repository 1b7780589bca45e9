"""Settings of a program: a TOML file and the environment -> one frozen dataclass, or one line that says what is wrong.

The dataclass is the whole description (`fd_protocol.documents`); settings may also be a `Path`, and a relative one
counts from the file's folder.

`FEDISTILL__SECTION__KEY=value` overrides `section.key`. The value of a text, path or choice is taken as it stands, any
other is read as TOML.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fd_protocol.documents import InvalidDocumentError, Place, build, convert
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


def load_toml(path: Path, cls: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """Return the `cls` that the file at `path` and the environment describe.

    Raises:
        ConfigError: no such file, no TOML, a key that is unknown, missing, of the wrong type, or refused.
    """
    table = _read(path)
    for variable, text in sorted(environ.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            _override(table, cls, variable, text)
    return build(cls, table, _place(path, path.parent))


def _place(source: Path | str, folder: Path) -> Place:
    return Place(source, ConfigError, {Path: lambda text: folder / Path(text).expanduser()})


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(path, "", "no such file") from error
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8 or not TOML: both are ValueErrors that say where
        raise ConfigError(path, "", f"not TOML: {' '.join(str(error).split())}") from error


def _override(table: dict[str, Any], cls: Any, variable: str, text: str) -> None:
    """Set in `table` what an environment variable says, after a look whether its type is right."""
    *sections, last = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    hint = cls
    place = _place(variable, Path())
    for section in sections:
        hint, place = _member(hint, section, place), place.inside(section)
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            place.expect("a table", table)
    hint, place = _member(hint, last, place), place.inside(last)
    table[last] = _value(hint, text, place)
    convert(hint, table[last], place)


def _member(hint: Any, name: str, place: Place) -> Any:
    """Return the type of `name` in a table of type `hint`."""
    if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        return get_args(hint)[1]
    members = get_type_hints(hint) if is_dataclass(hint) else {}
    return _not_none(members.get(name)) or place.inside(name).fail("unknown key")


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


def _not_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(argument for argument in get_args(hint) if argument is not types.NoneType)
    return hint
