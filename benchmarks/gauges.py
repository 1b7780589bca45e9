"""What a process and all its descendants use, by /proc of Linux: memory in MB of 10^6 bytes, processor in seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
LOOK_S = 0.1


def tree(pid: int, size: Callable[[int], float] | None = None) -> dict[int, float]:
    """Return the MB, resident unless `size` measures otherwise, of a process and of all its descendants."""
    sizes = {pid: (size or resident_mb)(pid)}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            sizes |= tree(int(child), size)
    return sizes


def proportional_mb(pid: int) -> float:
    """Return the proportional set size (PSS): of a page that n processes share, each has 1 / n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE / 1e6


def processor_s(pid: int) -> float:
    """Return user and system time of one process, of its children that have ended and been waited for too."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / _TICKS


def quiet_tree(pid: int, size: Callable[[int], float] = lambda _: 0.0) -> dict[int, float]:
    """Return `tree` while processes come and go: of one that has just ended, 0; of one that is no more, nothing."""

    def of_one(one: int) -> float:
        try:
            return size(one)
        except (OSError, StopIteration):
            return 0.0

    while Path(f"/proc/{pid}/task").exists():
        try:
            return tree(pid, of_one)
        except OSError:
            continue  # one ended between two looks
    return {}


def together(pids: Sequence[int], size: Callable[[int], float]) -> float:
    """Return the sum over these trees."""
    return sum(sum(quiet_tree(pid, size).values()) for pid in pids)


class Peak:
    """Looks at the memory of a tree until it is left, and keeps the most.

    PSS, not RSS, where processes are forked: a child is told to have all that its parent has.
    """

    def __init__(self, pid: int, size: Callable[[int], float] = proportional_mb, look_s: float = LOOK_S) -> None:
        self.mb = 0.0
        self._pid, self._size, self._look_s, self._done = pid, size, look_s, Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(self._look_s):
            self.mb = max(self.mb, together([self._pid], self._size))


def used_s(pids: Sequence[int]) -> float:
    """Return the processor time of these trees together; what has ended is counted by whoever waited for it."""
    return together(pids, processor_s)
