"""How much this device writes to its flash, and how often a checkpoint is worth it.

The kernel counts what each process has caused to be written to a disk (`write_bytes` in /proc/PID/io; what goes to a
tmpfs is not in it). The worker adds up its own count and its supervisor's: journal, checkpoints, private store and logs
are all in there, whoever wrote them and however often. Totals of today lie in a file and outlive restarts.

What is left for the day is spread evenly over the rest of it: the nearer the bound, the rarer the checkpoints. That at
the end of a training is always written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fd_runtime.files import write_atomically

DAY_S = 86_400
_NEVER_S = float("inf")
_PROC = Path("/proc")
_KEEP_S = 600.0
"""How often the totals are written, at most: they wear the flash too."""


@dataclass(frozen=True, slots=True)
class Writers:
    """Bytes that processes have caused to be written since each began: by (process id, start time)."""

    proc: Path
    process_ids: tuple[int, ...]

    def read(self) -> dict[str, int]:
        found = {}
        for process_id in self.process_ids:
            with suppress(OSError, ValueError, StopIteration, IndexError):
                folder = self.proc / str(process_id)
                lines = (folder / "io").read_text(encoding="ascii").splitlines()
                written = next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
                # The start time, field 22; the name in field 2 may hold spaces and brackets.
                started = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
                found[f"{process_id} {started}"] = written
        return found


@dataclass(frozen=True, slots=True)
class Written:
    """What was written on one day.

    Attributes:
        day: since 1970, UTC.
        written_bytes: on it.
        seen: the processes' counts when they were last looked at.
    """

    day: int = 0
    written_bytes: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)

    def after(self, counts: Mapping[str, int], day: int) -> Written:
        """Return it after another look. A clock that runs back changes no day."""
        new = sum(count - self.seen.get(process, 0) for process, count in counts.items())
        today = self if day <= self.day else Written(day)
        return Written(today.day, today.written_bytes + max(0, new), dict(counts))


def interval_s(size_bytes: int, left_bytes: float, left_s: float, least_s: float) -> float:
    """Return how many seconds of training a checkpoint of this size should cover.

    Args:
        size_bytes: of a checkpoint.
        left_bytes: of the day's bound; infinite without one.
        left_s: of the day.
        least_s: never more often.
    """
    if left_bytes <= size_bytes:
        return _NEVER_S
    return max(least_s, left_s * size_bytes / left_bytes)


class Wear:
    """The device's count of today.

    Args:
        path: of the file that keeps it; None = nowhere.
        most_mb: to be written a day; 0 = no bound.
        writers: the processes that count; None: this one and its parent.
        clock: UTC seconds.
    """

    def __init__(
        self,
        path: Path | None,
        most_mb: float,
        *,
        writers: Callable[[], Mapping[str, int]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._most_bytes, self._clock = path, most_mb * 1e6 or _NEVER_S, clock
        self._writers = writers or Writers(_PROC, (os.getpid(), os.getppid())).read
        self._written = _load(path)
        self._kept_at_s = 0.0
        self.look()

    def look(self) -> Written:
        """Return today's total as it is now."""
        now_s = self._clock()
        self._written = self._written.after(self._writers(), int(now_s // DAY_S))
        if abs(now_s - self._kept_at_s) >= _KEEP_S:
            self.keep()
        return self._written

    def keep(self) -> None:
        """Write the total down; a disk that takes nothing more is of no concern to it."""
        self._kept_at_s = self._clock()
        if self._path is not None:
            with suppress(OSError):
                write_atomically(self._path, _dump(self._written), mode=0o600)

    def checkpoint_interval_s(self, size_bytes: int, least_s: float) -> float:
        """Return how many seconds of training a checkpoint of this size should cover today."""
        left_bytes = self._most_bytes - self.look().written_bytes
        return interval_s(size_bytes, left_bytes, DAY_S - self._clock() % DAY_S, least_s)


def _dump(written: Written) -> bytes:
    return json.dumps({"day": written.day, "written_bytes": written.written_bytes, "seen": written.seen}).encode()


def _load(path: Path | None) -> Written:
    """A file that is missing or damaged costs the count of a day."""
    try:
        content = json.loads(path.read_bytes()) if path is not None else {}
        return Written(int(content["day"]), int(content["written_bytes"]), dict(content["seen"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Written()
