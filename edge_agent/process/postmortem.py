"""Why a worker died, told from what is left of it: exit status, the kernel's counters, its own last words.

A SIGKILL says nothing of who sent it. The kernel counts the processes that it kills for want of memory, in the control
group (`memory.events`, `memory.oom_control`) and on the machine (`/proc/vmstat`): a count that has gone up tells.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_SHORT_OF_MEMORY = re.compile(r"bad.?alloc|failed to allocate|out of memory|cannot allocate", re.IGNORECASE)
"""How onnxruntime, C++ and the system say it, in exceptions of types that say nothing."""


class Cause(str, Enum):
    """Kinds of death, as they stand at the head of a reason."""

    CRASH = "crash"
    HANG = "hang"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one worker."""

    cause: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.cause.value}: {self.detail}"


def cause_of(error: BaseException) -> Cause:
    """Return what an exception that nobody handled amounts to."""
    is_short = isinstance(error, MemoryError) or _SHORT_OF_MEMORY.search(str(error)) is not None
    return Cause.OUT_OF_MEMORY if is_short else Cause.CRASH


def explain(exit_status: int, kills: Mapping[str, int], kills_before: Mapping[str, int]) -> Death:
    """Return why a process ended that said nothing about it.

    Args:
        exit_status: as `subprocess` tells it; negative: the signal.
        kills: `oom_kills` now.
        kills_before: `oom_kills` at its start.
    """
    if exit_status >= 0:
        return Death(Cause.CRASH, f"exit status {exit_status}")
    if exit_status != -signal.SIGKILL:
        return Death(Cause.CRASH, _signal_name(-exit_status))
    for scope, count in kills.items():
        if scope in kills_before and count > kills_before[scope]:
            return Death(Cause.OUT_OF_MEMORY, f"the kernel killed it, the {scope} being short of memory")
    if kills:
        return Death(Cause.KILLED, "SIGKILL, and not by the kernel for want of memory")
    return Death(Cause.KILLED, "SIGKILL, perhaps for want of memory: the kernel's counters cannot be read")


def oom_kills(root: Path = Path("/")) -> dict[str, int]:
    """Return how many processes the kernel has killed for want of memory, by scope, the narrowest first."""
    files = {"control group": _group_file(root), "machine": root / "proc/vmstat"}
    counts = {scope: _count(path, "oom_kill") for scope, path in files.items() if path is not None}
    return {scope: count for scope, count in counts.items() if count is not None}


def _group_file(root: Path) -> Path | None:
    """Return where our control group keeps its count, in version 2 or 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):
            files.append(root / "sys/fs/cgroup/memory" / group.lstrip("/") / "memory.oom_control")
        elif not controllers:
            files.append(root / "sys/fs/cgroup" / group.lstrip("/") / "memory.events")
    return next((path for path in files if path.is_file()), None)


def _count(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((int(number) for key, _, number in (line.partition(" ") for line in lines) if key == name), None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
