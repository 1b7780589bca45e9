"""Marks of settings that a server may change on a device: never one that loosens privacy, or names peer or data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Restart = Literal["nothing", "worker", "agent"]
"""What of a device starts anew where a setting has changed."""
REMOTE = "remote"
"""Under this name the metadata of a field says that a server may change it, and how (`Remote`)."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What a server may do to a field.

    Attributes:
        restart: what starts anew then.
        is_within: of a value and the owner's own: does it ask for no more of the device? None: any value will do.
    """

    restart: Restart
    is_within: Callable[[Any, Any], bool] | None = None


def remotely(default: Any, *, restart: Restart, is_within: Callable[[Any, Any], bool] | None = None) -> Any:
    """A dataclass field that a server may change on a device: never one that loosens privacy, or names peer or data."""
    return field(default=default, metadata={REMOTE: Remote(restart, is_within)})
