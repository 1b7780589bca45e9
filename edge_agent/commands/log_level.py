"""Command `log-level`: say more, or less, for a while.

level   debug, info, warning or error
for_s   seconds, 3600 by default, a day at most
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.care.log_level import LogLevels, Standing
from edge_agent.commands.doing import CommandFailedError, Doing, Done, Finished
from edge_agent.commands.machine import INVALID
from fd_protocol.messages import Command
from fd_runtime.logs import LEVELS

_USUAL_S, _LONGEST_S = 3600, 86_400


def log_level_handler(levels: LogLevels) -> Callable[..., Doing]:
    """Return the handler."""

    def handle(command: Command, *, is_resumed: bool) -> Doing:
        standing = levels.standing
        if is_resumed and standing is not None and standing.command == command.id:
            return _told(standing)  # its while has begun
        level = next((one for one in LEVELS if one == command.arguments.get("level")), None)
        if level is None:
            raise CommandFailedError(f"{INVALID}: level is one of {', '.join(LEVELS)}")
        levels.set(level, _seconds(command.arguments.get("for_s", str(_USUAL_S))), command.id)
        standing = levels.standing
        assert standing is not None
        return _told(standing)

    return handle


def _told(standing: Standing) -> Doing:
    told = {"level": standing.level, "for_s": str(standing.for_s), "until_utc_s": str(standing.until_utc_s)}
    return Finished(Done(told))


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= _LONGEST_S:
        raise CommandFailedError(f"{INVALID}: for_s lies in 1..{_LONGEST_S}")
    return int(text)
