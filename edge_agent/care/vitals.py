"""How a running device is, for whoever must decide by it: a gate, a command that waits for it to be well.

They tell of one life. `process.standing` tells them, and more, to the outside.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECTED, CONNECTING = "connected", "connecting"


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

    @property
    def connection(self) -> str:
        """`connected`, `connecting`, or why not."""
        if self.is_connected:
            return CONNECTED
        return f"not connected: {self.link}" if self.link else CONNECTING

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
