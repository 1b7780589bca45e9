"""Power cuts: the program stands still after each call that changes something, and what has reached the disk is kept.

Every image is a case: the disk as it was, the program begins anew, and what was promised by then must hold.

    lazy   nothing reaches the disk but what the program itself asks for
    mixed  at each stop the kernel has written some file or folder too, by lot: so things reach the disk in any order
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.area import ACT, Area
from tests.faults.disk import Disk, Image
from tests.faults.injection import Case, disturb, traced
from tests.faults.warm import PATIENCE_S

LAZY, MIXED = "lazy", "mixed"
_CALLS = "fsync,fdatasync,rename,write,pwrite64,unlink,unlinkat,mkdir,rmdir,ftruncate,fchmod"
"""But not sendfile: a signal interrupts it before its first byte, each time that it is tried again."""
_STOPPED = re.compile(rb"^(\d+) +--- stopped by SIGSTOP ---", re.MULTILINE)
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of a run: what had reached the disk, and what had been promised."""

    image: Image
    marks: str
    world: Any


@dataclass(slots=True)
class Run:
    """A run, moment by moment; the disk, and what the program was given."""

    area: Area
    place: Path
    disk: Disk
    arguments: list[Any]
    moments: list[Moment]

    def wrong_after(self, moment: Moment) -> str:
        """Return what is wrong where the power went at a moment; empty: nothing."""
        self.disk.become(moment.image)
        Path(self.place / "marks").write_text(moment.marks)
        self.area.go_back_to(moment.world, self.arguments)
        return self.area.wrong(self.place, self.arguments)


@contextmanager
def run(
    area: Area, act: str, *, mode: str = LAZY, after: Case | None = None, function: str = ACT, seed: str = ""
) -> Iterator[Run]:
    """Let an area act on a disk of its own, and keep every moment; `after`: the life before was cut short there."""
    place = area.place()
    disk = Disk(place)
    try:
        (disk.mount / "state").mkdir()
        (place / "state").symlink_to(disk.mount / "state")
        arguments = area.prepare(place, act)
        disk.sync()
        if after is not None:
            disturb(area.warm, after.point, after.fault, function, *arguments, patience_s=area.patience_s)
        yield Run(area, place, disk, arguments, _moments(area, place, disk, arguments, function, mode, seed))
    finally:
        area.leave()
        disk.close()


def _moments(
    area: Area, place: Path, disk: Disk, arguments: list[Any], function: str, mode: str, seed: str
) -> list[Moment]:
    lot = random.Random(f"{area.name} {seed}")
    found: dict[tuple[str, str], Moment] = {}
    stops = _Stops(place / "stops")
    options = ["-o", str(stops.log), "-e", f"trace={_CALLS}", "-e", f"inject={_CALLS}:signal=STOP"]
    with traced(area.warm, options, function, *arguments) as fork:
        end_s = time.monotonic() + PATIENCE_S
        while fork.is_alive() and time.monotonic() < end_s:
            area.between(fork, arguments)
            if not (standing := stops.standing(fork.pid)):
                time.sleep(_POLL_S)
                continue
            promised = _text(place / "marks")  # first: another process of its may go on meanwhile
            if mode == MIXED:
                _write_back(disk, lot)
            moment = Moment(disk.image(), promised, area.world(arguments))
            found.setdefault((moment.image.digest, moment.marks), moment)
            for pid in standing:
                stops.go_on(pid)
        fork.kill()
    moment = Moment(disk.image(), _text(place / "marks"), area.world(arguments))
    found.setdefault((moment.image.digest, moment.marks), moment)
    return list(found.values())


class _Stops:
    """Which processes stand still: each thread of theirs has been stopped since they went on last."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._went_on_at: dict[int, int] = {}

    def standing(self, first: int) -> list[int]:
        said = self.log.read_bytes() if self.log.exists() else b""
        return [pid for pid in _processes_of(first) if self._stands(pid, said)]

    def _stands(self, pid: int, said: bytes) -> bool:
        stopped = {int(thread) for thread in _STOPPED.findall(said[self._went_on_at.get(pid, 0) :])}
        threads = {int(path.name) for path in Path(f"/proc/{pid}/task").glob("*")}
        return bool(threads) and stopped >= threads

    def go_on(self, pid: int) -> None:
        self._went_on_at[pid] = self.log.stat().st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _processes_of(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                yield from _processes_of(int(child))


def _write_back(disk: Disk, lot: random.Random) -> None:
    """Let some of what waits reach the disk."""
    if lot.random() < 0.5:
        return
    paths = [path for path in sorted((disk.mount / "state").rglob("*")) if not path.is_symlink()]
    if paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(lot.choice(paths), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
