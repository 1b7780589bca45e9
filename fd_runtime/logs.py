"""Logs of a long-running program, on standard error: lines for people, for journald, or JSON for a collector.

Under systemd standard error is a stream of the journal, which reads a line's priority from a prefix such as `<4>` and
knows the time by itself. The last lines are kept in memory (`Tail`), for whoever asks what happened before.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TextIO

from fd_runtime.remote_fields import remotely

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "journal", "json"]

LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Of syslog, which journald takes over; whatever is below is 7, debug."""
_TAIL_LINES = 500
_TAIL_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How much a program says, and in which form; `auto` is `journal` where standard error leads there, else `text`."""

    level: Level = remotely("info", restart="nothing")
    format: Format = "auto"


class Tail(logging.Handler):
    """Keeps the last lines in memory, cut to a length, and counts records by level."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Text(""))
        self.lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.levelname.lower()] += 1
        self.lines.extend(line[:_TAIL_CHARACTERS] for line in self.format(record).splitlines())


def set_up_logs(settings: LogSettings, *, who: str = "", stream: TextIO | None = None) -> Tail:
    """Send everything that is logged to standard error, in the form that `settings` asks for; call it once a process.

    Args:
        settings: of the program.
        who: the part of the program that this process is; empty = the whole.
        stream: instead of standard error.

    Returns:
        What keeps the last lines.
    """
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(settings.format, who, stream))
    tail = Tail()
    root = logging.getLogger()
    root.handlers[:] = [handler, tail]
    set_level(settings.level)
    return tail


def set_level(level: Level) -> None:
    logging.getLogger().setLevel(level.upper())


def leads_to_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd connected `stream` with the journal: it tells the device and inode of that stream."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def _formatter(form: Format, who: str, stream: TextIO) -> logging.Formatter:
    if form == "auto":
        form = "journal" if leads_to_journal(stream) else "text"
    return {"text": _Text, "journal": _Journal, "json": _Json}[form](who)


class _Text(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s {who + ' ' if who else ''}%(levelname)s %(message)s")


class _Journal(logging.Formatter):
    """Every line has the prefix: journald takes each for an entry of its own."""

    def __init__(self, who: str) -> None:
        super().__init__(f"{who + ': ' if who else ''}%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = {"process": who} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._who,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)
