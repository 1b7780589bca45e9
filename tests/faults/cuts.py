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
_CALLS = "fsync,fdatasync,rename,write,pwrite64,unlink,unlinkat,mkdir,rmdir,ftruncate,fchmod,sendfile"
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
    log, lot = place / "stops", random.Random(f"{area.name} {seed}")
    found: dict[tuple[str, str], Moment] = {}
    options = ["-o", str(log), "-e", f"trace={_CALLS}", "-e", f"inject={_CALLS}:signal=STOP"]
    with traced(area.warm, options, function, *arguments) as fork:
        seen, end_s = 0, time.monotonic() + PATIENCE_S
        while fork.is_alive() and time.monotonic() < end_s:
            area.between(fork, arguments)
            stops = _STOPPED.findall(log.read_bytes() if log.exists() else b"")
            if len(stops) == seen:
                time.sleep(_POLL_S)
                continue
            if mode == MIXED:
                _write_back(disk, lot)
            moment = Moment(disk.image(), _text(place / "marks"), area.world(arguments))
            found.setdefault((moment.image.digest, moment.marks), moment)
            for pid in set(stops[seen:]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGCONT)
            seen = len(stops)
        fork.kill()
    moment = Moment(disk.image(), _text(place / "marks"), area.world(arguments))
    found.setdefault((moment.image.digest, moment.marks), moment)
    return list(found.values())


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
