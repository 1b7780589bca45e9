"""What a device lets its server order."""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_protocol.topics import COMMANDS


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """What the server may order, and how long a device that it has reconfigured may take to be well again."""

    allow: tuple[str, ...] = COMMANDS
    health_window_s: int = 120

    def __post_init__(self) -> None:
        for name in self.allow:
            check_name(name, "a command")
        if not 10 <= self.health_window_s <= 86_400:
            raise InvalidValueError("health_window_s lies in 10..86400")
