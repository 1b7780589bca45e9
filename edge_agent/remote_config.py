"""Settings that a server has changed: a small file beside the store, never the owner's.

    owner's file  <  remote values  <  environment

    begin --> on trial --keep--> kept
                 |
                 +--roll_back--> the values of before

The owner's file is not written: it may lie where the service cannot write, and it is the owner's. What the server may
change is marked field by field where a setting is described (`remotely`); budgets it may only tighten, as the stricter
of two privacy terms wins; sections that say who the device is, whom it trusts, what it reads and what it may tell are
closed whatever a field says. One file holds everything, so that a power
cut finds it before a change or after it.

What is deliberately absent: whether a device is well (`commands.config`), restarts (`lives`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.config import Override, value_of
from fd_runtime.config_keys import keys_of
from fd_runtime.files import write_atomically
from fd_runtime.remote_fields import REMOTE, Remote

NAME = "remote_config.json"
SOURCE = "remote config"
CLOSED_SECTIONS = frozenset(
    {
        "device",
        "broker",
        "enrolment",
        "state",
        "data",
        "sources",
        "store",
        "privacy",
        "api",
        "outputs",
        "home_assistant",
        "commands",
    }
)
"""No key of these is ever a server's to change."""
MAX_STARTS = 3
"""Lives that values on trial may take to show that the device is well with them."""


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """What the server has changed.

    Attributes:
        values: what counts, by dotted key, as text; see `fd_runtime.config.Override`.
        before: what to go back to from a trial.
        trial: id of the command whose values are on trial; empty = none is.
        starts: lives that began with them.
        settled: id of the last command that was decided.
        outcome: why its values were rolled back; empty: they were kept.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    trial: str = ""
    starts: int = 0
    settled: str = ""
    outcome: str = ""

    def overrides(self, own: Any) -> tuple[Override, ...]:
        """Return the values that count where the owner's settings are `own`; what they do not allow is passed over.

        Raises:
            ConfigError: a value is none.
        """
        allowed = remote_keys(type(own))
        return tuple(
            Override(SOURCE, key, text)
            for key, text in sorted(self.values.items())
            if key in allowed and is_allowed(own, key, text)
        )


def is_allowed(own: Any, key: str, text: str) -> bool:
    """Return whether a value of a key that is the server's to change asks for no more than the owner's settings `own`.

    Raises:
        ConfigError: it is no value.
    """
    is_within = remote_keys(type(own))[key].is_within
    return is_within is None or is_within(value_of(type(own), key, text, SOURCE), own_value(own, key))


def own_value(own: Any, key: str) -> Any:
    """Return what the settings `own` say under a dotted key."""
    return reduce(getattr, key.split("."), own)


def remote_keys(cls: Any) -> dict[str, Remote]:
    """Return the keys of the settings `cls` that a server may change, and how."""
    return {
        key.name: key.metadata[REMOTE]
        for key in keys_of(cls)
        if REMOTE in key.metadata and key.name.partition(".")[0] not in CLOSED_SECTIONS
    }


def merged(values: Mapping[str, str], patch: Mapping[str, str]) -> dict[str, str]:
    """Return `values` with those of `patch`; an empty text takes a value back."""
    return {key: text for key, text in {**values, **patch}.items() if text}


def begin(config: RemoteConfig, command_id: str, values: Mapping[str, str]) -> RemoteConfig:
    return replace(config, values=values, before=config.values, trial=command_id, starts=0)


def count_start(config: RemoteConfig) -> RemoteConfig:
    """Another life begins with the values on trial; one too many, and they are rolled back."""
    if not config.trial:
        return config
    if config.starts >= MAX_STARTS:
        return roll_back(config, f"it did not become well in {MAX_STARTS} starts")
    return replace(config, starts=config.starts + 1)


def keep(config: RemoteConfig) -> RemoteConfig:
    return RemoteConfig(config.values, settled=config.trial)


def roll_back(config: RemoteConfig, why: str) -> RemoteConfig:
    return RemoteConfig(config.before, settled=config.trial, outcome=why)


def load(folder: Path) -> RemoteConfig:
    """Return what the state folder says.

    Raises:
        InvalidDocumentError: a newer agent wrote it, or it is damaged.
    """
    path = folder / NAME
    try:
        return from_json(RemoteConfig, path.read_bytes(), Place(path, InvalidDocumentError))
    except (FileNotFoundError, NotADirectoryError):
        return RemoteConfig()


def save(folder: Path, config: RemoteConfig) -> None:
    """Raises: OSError: no room; what was there stands."""
    write_atomically(folder / NAME, to_json(config), mode=0o600)
