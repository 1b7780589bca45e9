"""How a running device is, for whoever looks: `edge-agent status`, a gate, a command that waits for it to be well.

The supervisor writes them beside its store whenever they change, and never else: a few hundred bytes at a connection,
none while nothing happens. They tell of one life of it; a lock says whether that life goes on.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json

NAME = "vitals.json"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the supervisor knows of itself.

    Attributes:
        pid: of the supervisor.
        boot: number of its life.
        since_utc_s: when that life began, by the clock of then.
        is_connected: the broker has taken it in.
        link: why it is not connected; empty where it is, or has not tried yet.
        worker_starts: how often the worker was ready in this life.
        is_worker_ready: it is ready now.
        problem: what keeps the device from taking part, in one word; empty = nothing.
    """

    pid: int
    boot: int
    since_utc_s: int
    is_connected: bool = False
    link: str = ""
    worker_starts: int = 0
    is_worker_ready: bool = False
    problem: str = ""

    def complaints(self) -> tuple[str, ...]:
        """Return what must be otherwise for the device to do its work; nothing: it is well."""
        found = []
        if not self.is_connected:
            found.append(f"not connected: {self.link}" if self.link else "not connected")
        if not self.is_worker_ready:
            found.append("the worker is not ready")
        if self.problem:
            found.append(self.problem)
        return tuple(found)


class Steadiness:
    """Tells when something has been well for `steady_s` seconds on end, being the same all the while."""

    def __init__(self, steady_s: float) -> None:
        self._steady_s = steady_s
        self._since_s: float | None = None
        self._who: object = None

    def look(self, who: object, now_s: float, *, is_well: bool) -> bool:
        """Take a look at `now_s`; return whether it is enough."""
        if not is_well:
            self._since_s = None
        elif self._since_s is None or who != self._who:
            self._since_s, self._who = now_s, who
        return self._since_s is not None and now_s - self._since_s >= self._steady_s


def write(folder: Path, vitals: Vitals) -> None:
    """Put `vitals` into the state folder; where there is no room they are not told, which is no reason to stop.

    Not forced to the disk: after a power cut they would be void anyway.
    """
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{NAME}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(to_json(vitals))
            Path(name).replace(folder / NAME)
        finally:
            Path(name).unlink(missing_ok=True)


def read(folder: Path) -> Vitals | None:
    """Return what was last written; None: nothing that can be read."""
    path = folder / NAME
    try:
        return from_json(Vitals, path.read_bytes(), Place(path, InvalidDocumentError))
    except (OSError, InvalidDocumentError):
        return None
