"""The text of agent.toml with other values in it; comments, order and everything else stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fd_runtime.config import ConfigError


def edited(text: str, changes: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """Return `text` with changes by dotted key, a value of None goes, and what it says then, unchecked.

    Args:
        text: TOML.
        changes: values by key.
        path: the file that errors name.

    Raises:
        ConfigError: a key that shall go is not set.
    """
    import tomlkit  # noqa: PLC0415 - 50 ms that few commands need

    document = tomlkit.parse(text)
    for key, value in changes.items():
        *sections, last = key.split(".")
        place: Any = document
        for section in sections:
            if section not in place:
                place[section] = tomlkit.table()
            place = place[section]
        if value is not None:
            place[last] = value
        elif last in place:
            del place[last]
        else:
            raise ConfigError(path, key, "is not set here")
    text = tomlkit.dumps(document)
    return text, tomlkit.parse(text).unwrap()
