"""A log level for a while: it goes back by itself, also across restarts.

The file in the state folder is the one home of it: the supervisor writes and removes it, both processes read it when
they start, and the worker again at SIGUSR1. Neither a clock that is set back nor a disk from which the file cannot be
removed makes the while longer than it was.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically
from fd_runtime.logs import Level, set_level

NAME = "log_level.json"

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Standing:
    """A level until a moment, `for_s` seconds at most; `command` is the id of the one that asked for it."""

    level: Level
    until_utc_s: int
    for_s: int
    command: str

    def remaining_s(self, now_utc_s: float) -> float:
        return min(max(0.0, self.until_utc_s - now_utc_s), self.for_s)


class LogLevels:
    """The supervisor's hand on the level.

    Args:
        folder: of the state.
        usual: what the settings say; read anew each time, for they may change.
        utc_s: seconds since 1970.
        monotonic_s: seconds that no clock change touches.
        tell_worker: makes the worker read the file again.
    """

    def __init__(
        self,
        folder: Path,
        usual: Callable[[], Level],
        utc_s: Callable[[], float],
        monotonic_s: Callable[[], float],
        tell_worker: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._usual = folder, usual
        self._utc_s, self._monotonic_s, self._tell_worker = utc_s, monotonic_s, tell_worker
        self._end_s: float | None = None
        self._ended: Standing | None = None
        """What is over, where its file may still be there."""
        self._apply()

    @property
    def standing(self) -> Standing | None:
        return load(self._folder)

    def set(self, level: Level, for_s: int, command: str) -> None:
        """Raises: OSError: no room; nothing has changed."""
        standing = Standing(level, int(self._utc_s()) + for_s, for_s, command)  # over for the worker when it is for us
        write_atomically(self._folder / NAME, to_json(standing))
        self._apply()
        self._tell_worker()

    def tick(self) -> None:
        """Go back where the while is over."""
        if self._end_s is not None and self._monotonic_s() >= self._end_s:
            self._ended = self.standing
            try:
                (self._folder / NAME).unlink(missing_ok=True)
            except OSError as error:
                log.warning("a log level is over, and its file stays: %s", error)
            self._apply()
            self._tell_worker()

    def refresh(self) -> None:
        """Apply what counts: the settings have changed."""
        self._apply()
        self._tell_worker()

    def _apply(self) -> None:
        standing = self.standing
        if standing is None or standing == self._ended:
            self._end_s = None
            set_level(self._usual())
            return
        remaining_s = standing.remaining_s(self._utc_s())
        self._end_s = self._monotonic_s() + remaining_s
        set_level(standing.level if remaining_s > 0 else self._usual())


def load(folder: Path) -> Standing | None:
    """Return what stands; None: nothing, or nothing that can be read."""
    path = folder / NAME
    try:
        return from_json(Standing, path.read_bytes(), Place(path, InvalidDocumentError))
    except (OSError, InvalidDocumentError):
        return None


def follow(folder: Path, usual: Callable[[], Level], utc_s: Callable[[], float]) -> None:
    """Let the level of this process, a worker, follow the file from now on. Call it on the main thread."""

    def apply(_number: int = 0, _frame: FrameType | None = None) -> None:
        standing = load(folder)
        is_over = standing is None or standing.remaining_s(utc_s()) <= 0
        set_level(usual() if standing is None or is_over else standing.level)

    signal.signal(signal.SIGUSR1, apply)
    apply()
