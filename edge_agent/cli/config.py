"""`edge-agent config`: settings read, changed, listed, and as a JSON schema."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from edge_agent import remote_config
from edge_agent.cli.init import places
from edge_agent.cli.output import table, tell
from edge_agent.cli.place import CONFIG_NAME, config_path
from edge_agent.configuration import load_own, load_settings
from edge_agent.remote_config import remote_keys
from edge_agent.settings import AgentSettings
from edge_agent.settings_file import edited
from fd_protocol.documents import nearest
from fd_protocol.errors import FedistillError
from fd_runtime.command_line import settings_text
from fd_runtime.config import (
    EX_USAGE,
    build_settings,
    environment_overrides,
    read_table,
    value_of,
)
from fd_runtime.config_keys import ANY_NAME, Key, explanations, json_schema, keys_of
from fd_runtime.files import write_atomically
from fd_runtime.remote_fields import Remote

FILE, REMOTE, ENVIRONMENT, DEFAULT = "file", "server", "environment", "default"
_SCHEMA_TITLE = "agent.toml: a device of fedistill"


class WrongKeyError(FedistillError):
    """A key is not asked for as it should be."""

    exit_code = EX_USAGE


# Reading.


def get(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    found = {key: entry for key, entry in values(path).items() if _is_asked_for(key, arguments.key)}
    if not found:
        _check_key(arguments.key)
        found = {arguments.key: (None, DEFAULT)}
    if set(found) == {arguments.key}:
        value, source = found[arguments.key]
        tell(arguments, {"value": value, "source": source}, _as_toml(value))
        return 0
    told = {key: {"value": value, "source": source} for key, (value, source) in found.items()}
    rows = [(key, source, _as_toml(value)) for key, (value, source) in found.items()]
    tell(arguments, told, table(("key", "from", "value"), rows))
    return 0


def values(path: Path) -> dict[str, tuple[Any, str]]:
    """Return what counts under every key that has a value, and where that comes from.

    Raises:
        ConfigError: the settings are wrong at a key.
    """
    settings = load_settings(path)
    own = dict(_leaves(read_table(path)))
    remote = {one.key for one in remote_config.load(settings.state.folder).overrides(load_own(path))}
    environment = {one.key for one in environment_overrides()}
    found = {}
    for key, value in _leaves(_plain(settings)):
        source = next(
            (name for name, keys in ((ENVIRONMENT, environment), (REMOTE, remote), (FILE, own)) if key in keys), DEFAULT
        )
        found[key] = (value, source)
    return found


def keys(arguments: argparse.Namespace) -> int:
    known = list(keys_of(AgentSettings))
    if arguments.markdown:
        print(markdown(known))
        return 0
    told = [
        {"key": key.name, "type": key.kind, "default": _plain(key.default), "for": _explained().get(key.name, "")}
        for key in known
    ]
    rows = [(key.name, _default(key), _explained().get(key.name, "")) for key in known]
    tell(arguments, told, table(("key", "default", "what it is for"), rows))
    return 0


def markdown(known: list[Key]) -> str:
    """Return the page of the manual that lists every key."""
    remote = remote_keys(AgentSettings)
    lines = [
        "# Every setting",
        "",
        f"Of `{CONFIG_NAME}`. `edge-agent config keys --markdown` prints this page, `edge-agent init` a file with",
        "the same words.",
        "[agent.schema.json](../agent.schema.json) is the same as a JSON schema, for an editor.",
        "`FEDISTILL__SECTION__KEY=value` in the environment overrides a key. A relative path counts from the file's",
        "folder. **server**: the server may change it ([commands.md](commands.md)), and what starts anew then;",
        "`stricter`: only to what asks for no more of the device than the owner's own value.",
        "",
        "| key | type | default | server | what it is for |",
        "|---|---|---|---|---|",
    ]
    for key in known:
        server, words = _remote(remote.get(key.name)), _explained().get(key.name, "")
        cells = (f"`{key.name}`", key.kind, _default(key), server, words)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _remote(remote: Remote | None) -> str:
    if remote is None:
        return ""
    return remote.restart if remote.is_within is None else f"{remote.restart}, stricter"


def schema(_arguments: argparse.Namespace) -> int:
    print(schema_text(), end="")
    return 0


def schema_text() -> str:
    """Return the JSON schema of the settings file."""
    return json.dumps(json_schema(AgentSettings, _SCHEMA_TITLE, _explained()), indent=1, ensure_ascii=False) + "\n"


def _explained() -> dict[str, str]:
    return explanations(AgentSettings, settings_text(CONFIG_NAME, "edge_agent", **places(is_system=False)))


# Writing.


def change(arguments: argparse.Namespace) -> int:
    """All or nothing: some keys make sense together alone."""
    if len(arguments.pairs) % 2:
        raise WrongKeyError("config set KEY VALUE [KEY VALUE ...]")
    pairs = list(zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True))
    path = config_path(arguments)
    for key, _ in pairs:
        _check_key(key)
    _rewrite(path, {key: value_of(AgentSettings, key, text, path) for key, text in pairs})
    tell(arguments, dict(pairs), "\n".join(f"{key} = {text}" for key, text in pairs))
    return _warn_where_overridden([key for key, _ in pairs])


def unset(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    _check_key(arguments.key)
    _rewrite(path, {arguments.key: None})
    tell(arguments, {arguments.key: None}, f"{arguments.key}: the default counts")
    return 0


def _check_key(key: str) -> None:
    known = [one.name for one in keys_of(AgentSettings)]
    if not any(re.fullmatch(re.escape(name).replace(re.escape(ANY_NAME), r"[\w-]+"), key) for name in known):
        raise WrongKeyError(f"{key}: unknown key{nearest(key, known)}")


def _rewrite(path: Path, changes: Mapping[str, Any]) -> None:
    """Put the changes into the file, if the device could start with them; a value of None goes.

    Raises:
        ConfigError: it could not; the file is as it was.
    """
    read_table(path)  # whatever is wrong with the file is told in our words
    text, table = edited(path.read_text(encoding="utf-8"), changes, path)
    build_settings(table, AgentSettings, path)
    target = path.resolve()  # a link stays one
    before = target.stat()
    write_atomically(target, text.encode(), mode=before.st_mode & 0o777)
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):  # the service must still be able to read it
        os.chown(target, before.st_uid, before.st_gid)


def _warn_where_overridden(changed: list[str]) -> int:
    for override in environment_overrides():
        if override.key in changed:
            print(f"note: {override.source} in the environment wins over {override.key}")
    return 0


# Values.


def _is_asked_for(key: str, asked: str | None) -> bool:
    return asked is None or key == asked or key.startswith(f"{asked}.")


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _default(key: Key) -> str:
    if key.is_required:
        return "required"
    return "" if key.default is None else f"`{_as_toml(_plain(key.default))}`"


def _as_toml(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
