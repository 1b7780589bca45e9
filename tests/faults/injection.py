"""Faults at system calls, by `strace`: which calls a program makes on its own files, and what happens if one fails.

    count      an undisturbed run --> `Point`s: the n-th call of a kind, in any of its threads, that is about its files
    disturb    the same run with one fault at one point

Calls on a database of SQLite are SQLite's business and no points.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.warm import PATIENCE_S, Fork, Warm

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

KILL, FULL, BROKEN = "signal=KILL", "error=ENOSPC", "error=EIO"
NAMES = {KILL: "kill", FULL: "ENOSPC", BROKEN: "EIO"}
GROWING = frozenset({"openat", "write", "fsync", "ftruncate", "mkdir", "rename", "sendfile"})
"""What a full disk refuses."""
CHANGING = GROWING | {"unlink", "unlinkat", "rmdir", "fchmod", "chmod", "copy_file_range", "link", "symlink"}
READING = frozenset({"read", "newfstatat", "getdents64", "flock", "statx"})
"""`lseek` is not among them: it reads no disk."""
WIRE = frozenset({"connect", "sendto", "recvfrom"})
_DATABASE = re.compile(r"\.db(-wal|-shm|-journal)?\b")
_CALL = re.compile(r"^(\w+)\(")
_OPEN_FOR_READING = re.compile(r"\bO_RDONLY\b(?!.*O_CREAT)")
_ATTACH_S = 60.0
_END_S = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The n-th call of a kind in some thread; `what` it is about, for people. It `changes` something, or looks."""

    call: str
    when: int
    what: str = ""
    changes: bool = True

    def faults(self) -> tuple[str, ...]:
        """What can happen there that is another thing than what happens at the next point."""
        if self.call in WIRE:
            return (KILL,)
        if not self.changes:
            return (BROKEN,)
        return (KILL, FULL, BROKEN) if self.call in GROWING else (KILL, BROKEN)


@dataclass(frozen=True, slots=True)
class Own:
    """Whose files are a program's own: all in `folder`, but for those `apart`, relative to it."""

    folder: Path
    apart: tuple[str, ...] = ()

    def of(self, line: str) -> str | None:
        """Return the file that a call is about; None: it is about none of these."""
        _, found, rest = line.partition(str(self.folder))
        name = rest.split('"')[0].split(">")[0].strip("/")
        is_own = found and not _DATABASE.search(name) and not any(name.startswith(one) for one in self.apart)
        return name or "." if is_own else None


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One fault at one point of one act."""

    act: str
    point: Point
    fault: str

    def __str__(self) -> str:
        return f"{self.act}: {NAMES[self.fault]} at {self.point.call} {self.point.when} ({self.point.what})"


@contextmanager
def traced(
    warm: Warm, options: Iterable[str], function: str, *arguments: object, patience_s: float = PATIENCE_S
) -> Iterator[Fork]:
    """Run a function to its end under `strace`; yields it once it runs. Where patience ends first, power is cut."""
    with warm.started(function, *arguments, waits=True) as fork:
        command = ["strace", "-f", "-qq", *options, "-p", str(fork.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                _await(lambda: tracer.poll() is not None or _tracer_of(fork.pid) != 0)
                assert tracer.poll() is None, tracer.stderr and tracer.stderr.read()
                os.kill(fork.pid, signal.SIGCONT)
                yield fork
                with suppress(subprocess.TimeoutExpired):
                    tracer.wait(patience_s)
            finally:
                fork.kill()  # also where the block has failed: `strace` ends with what it traces, and is waited for
                _see_off(tracer)


def count(warm: Warm, own: Own, log: Path, function: str, *arguments: object, wire: bool = False) -> list[Point]:
    """Return the points of an undisturbed run, by what it does with its `own` files (with `wire`: and on TCP)."""
    with counting(warm, log, function, *arguments, wire=wire):
        pass
    return points_of(log, own)


def counting(
    warm: Warm, log: Path, function: str, *arguments: object, wire: bool = False
) -> AbstractContextManager[Fork]:
    """A run that writes down its calls in the folder `log`."""
    calls = CHANGING | READING | (WIRE if wire else frozenset())
    log.mkdir()
    options = ["-ff", "-yy", "-e", f"trace={','.join(sorted(calls))}", "-o", str(log / "log")]
    return traced(warm, options, function, *arguments)


def points_of(log: Path, own: Own) -> list[Point]:
    """Return the points of a run that was written down."""
    found: dict[tuple[str, int], Point] = {}
    for path in sorted(log.glob("log.*")):
        for point in _points(path.read_text(errors="replace").splitlines(), own):
            found.setdefault((point.call, point.when), point)
    assert found
    return sorted(found.values())


def few_of_each(points: Iterable[Point], most: int, *, also_changes: bool = False) -> list[Point]:
    """Leave out where a file is looked at again and again: of each call so many (`also_changes`: and written)."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for point in sorted(points):
        seen[point.call, point.what] += 1
        if seen[point.call, point.what] <= most or (point.changes and not also_changes):
            kept.append(point)
    return kept


def disturb(
    warm: Warm, point: Point, fault: str, function: str, *arguments: object, patience_s: float = PATIENCE_S
) -> None:
    """Run a function with a fault at a point."""
    with disturbed(warm, point, fault, function, *arguments, patience_s=patience_s):
        pass


def disturbed(
    warm: Warm, point: Point, fault: str, function: str, *arguments: object, patience_s: float = PATIENCE_S
) -> AbstractContextManager[Fork]:
    """The same, with time inside to play along."""
    inject = f"inject={point.call}:{fault}:when={point.when}"
    options = ["-o", "/dev/null", "-e", f"trace={point.call}", "-e", inject]
    return traced(warm, options, function, *arguments, patience_s=patience_s)


def cases(act: str, points: Iterable[Point]) -> list[Case]:
    return [Case(act, point, fault) for point in points for fault in point.faults()]


def tally(done: Collection[Case]) -> Counter[tuple[str, str]]:
    """How many of each call and fault."""
    return Counter((case.point.call, NAMES[case.fault]) for case in done)


def _points(lines: Iterable[str], own: Own) -> Iterator[Point]:
    seen: Counter[str] = Counter()
    for line in lines:
        match = _CALL.match(line)
        if match is None:
            continue
        call = match[1]
        seen[call] += 1
        if call in WIRE:
            if "TCP" in line or "sin_port" in line:
                yield Point(call, seen[call], "the server")
        elif (name := own.of(line)) is not None:
            changes = call in CHANGING and not (call == "openat" and _OPEN_FOR_READING.search(line))
            yield Point(call, seen[call], _general(name), changes)


def _general(name: str) -> str:
    """The name without what differs from run to run."""
    name = re.sub(r"[0-9a-f]{64}", "DIGEST", name)
    return re.sub(r"(^|/)\.([^/]+)\.[a-z0-9_]{8}$", r"\1\2 (temporary)", name)


def _see_off(tracer: subprocess.Popen[str]) -> None:
    try:
        tracer.wait(_END_S)
    except subprocess.TimeoutExpired:  # it follows a process that left the fork's group, and goes on
        tracer.kill()


def _tracer_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return -1
    return int(next(line for line in status.splitlines() if line.startswith("TracerPid:")).split()[1])


def _await(claim: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _ATTACH_S
    while not claim():
        assert time.monotonic() < end_s, "strace does not come"
        time.sleep(0.002)
