"""What breaks in a bad hour: programs, workers, wires, clocks, disks, the broker; each is mended again.

A program that has ended is started again after a second, as systemd does.
"""

from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from os import environ, geteuid, kill, pathsep
from pathlib import Path
from subprocess import run

from fleet_sim.real.fleet import Fleet
from fleet_sim.real.processes import Program

_AT_ONCE, _MOST_S, _RESTART_S, _STEP_S = 2, 12.0, 1.0, 0.5
_DISK_MB = 24
_CLOCKS = ("-1d", "+1d", "-20s", "+20s", "@1970-01-01 00:00:10")
_RIGHT = "+0"
_SLEEP = """\
import threading, time


def sleep(seconds):
    threading.Event().wait(seconds)


time.sleep = sleep
"""
_ON_A_FULL_DISK = {73, 74}
"""EX_CANTCREAT and EX_IOERR: what a program says that is started there."""
_GRACE_S = 5.0
"""After a disk has room again: a program that was started before may end by it."""


@dataclass(slots=True)
class Chaos:
    """What can be broken, and what has been.

    Attributes:
        fleet: the programs.
        clocks: the file that says how wrong a program's clock is, by name; none without libfaketime.
        disks: the file that fills a program's disk, by name; none where no disk could be mounted.
        counts: of faults, by kind.
        unasked: programs that ended by themselves, with exit codes.
    """

    fleet: Fleet
    clocks: Mapping[str, Path]
    disks: Mapping[str, Path]
    counts: Counter[str] = field(default_factory=Counter)
    unasked: list[str] = field(default_factory=list)
    _ended_s: dict[str, float] = field(default_factory=dict)
    _killed: set[str] = field(default_factory=set)
    _full_until_s: dict[str, float] = field(default_factory=dict)

    def disturb(self, seconds: float, chance: random.Random) -> None:
        """Break things for so long, two at a time at most, and mend them all."""
        until_s = time.monotonic() + seconds
        standing: list[tuple[float, tuple[str, str], ExitStack]] = []
        with ExitStack() as all_of_them:
            while time.monotonic() < until_s:
                self.keep_running()
                now_s = time.monotonic()
                for _, _, stack in (done := [one for one in standing if one[0] < now_s]):
                    stack.close()
                standing = [one for one in standing if one not in done]
                if len(standing) < _AT_ONCE and chance.random() < 0.25:
                    struck = {which for _, which, _ in standing}
                    which = chance.choice([one for one in self._kinds() if one not in struck])
                    stack = all_of_them.enter_context(ExitStack())
                    stack.enter_context(self._fault(*which, chance))
                    standing.append((now_s + chance.uniform(0.5, _MOST_S), which, stack))
                time.sleep(_STEP_S)

    def keep_running(self) -> None:
        """Start again what has ended a second ago."""
        for program in self.fleet.programs:
            if (code := program.exit_code) is None:
                self._ended_s.pop(program.name, None)
            elif time.monotonic() > self._ended_s.setdefault(program.name, time.monotonic()) + _RESTART_S:
                if not self._may_have_ended(program.name, code):
                    self.unasked.append(f"{program.name}: {code}")
                self._killed.discard(program.name)
                program.start_again()

    def _may_have_ended(self, name: str, code: int) -> bool:
        """Whether it was we who killed it, or its disk is full, or was a moment ago."""
        if code == -signal.SIGKILL:
            return name in self._killed
        return code in _ON_A_FULL_DISK and time.monotonic() < self._full_until_s.get(name, 0.0)

    def _kinds(self) -> list[tuple[str, str]]:
        return [
            *(("kill", program.name) for program in self.fleet.programs),
            *(("kill worker", name) for name in self.fleet.devices),
            *(("partition", name) for name in self.fleet.devices),
            *(("clock", name) for name in self.clocks),
            *(("full disk", name) for name in self.disks),
            ("kill broker", "broker"),
        ]

    @contextmanager
    def _fault(self, kind: str, name: str, chance: random.Random) -> Iterator[None]:
        self.counts[kind] += 1
        match kind:
            case "kill":
                self._killed.add(name)
                self._program(name).kill()
                yield
            case "kill worker":
                for pid in children(self._program(name).pid):
                    with suppress(ProcessLookupError):
                        kill(pid, signal.SIGKILL)
                yield
            case "partition":
                self.fleet.meter.cut(name)
                yield
                self.fleet.meter.mend(name)
            case "clock":
                set_clock(self.clocks[name], chance.choice(_CLOCKS))
                yield
                set_clock(self.clocks[name], _RIGHT)
            case "full disk":
                self._full_until_s[name] = math.inf
                fill(self.disks[name])
                yield
                self.disks[name].unlink()
                self._full_until_s[name] = time.monotonic() + _GRACE_S
            case "kill broker":
                self.fleet.broker.kill()
                yield
                self.fleet.broker.start()

    def _program(self, name: str) -> Program:
        return next(program for program in self.fleet.programs if program.name == name)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def fill(path: Path) -> None:
    """Write to the file until there is no room left."""
    with path.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def own_disks(states: Path, names: tuple[str, ...], stack: ExitStack) -> dict[str, Path]:
    """Give every program a disk of its own for its state, until the stack is left; none without root."""
    if geteuid() != 0:
        return {}
    for name in names:
        (states / name).mkdir(parents=True)
        mounted = run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "none", states / name], check=False)
        if mounted.returncode:
            return {}
        stack.callback(run, ["umount", "--lazy", states / name], check=False)
    return {name: states / name / "ballast" for name in names}


def own_clocks(folder: Path, names: tuple[str, ...]) -> tuple[dict[str, Path], dict[str, dict[str, str]]]:
    """Return the file that sets each program's clock, and its environment; none without libfaketime.

    libfaketime 0.9.10 takes the time until which `time.sleep` sleeps, by the monotonic clock, for one of the wall clock
    and moves it too: sleepers sleep for a day, or get EINVAL. So there programs sleep by waiting for what never comes.
    """
    library = next((path for path in Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return {}, {}
    (folder / "sleep").mkdir(parents=True)
    (folder / "sleep" / "sitecustomize.py").write_text(_SLEEP)
    files = {name: folder / name for name in names}
    for path in files.values():
        set_clock(path, _RIGHT)
    all_have = {
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": f"{folder / 'sleep'}{pathsep}{environ.get('PYTHONPATH', '')}",
    }
    told = {name: {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(files[name])} for name in names}
    return files, {name: one | all_have for name, one in told.items()}


def set_clock(path: Path, offset: str) -> None:
    """Set a clock, as libfaketime writes it: an offset, or a time after an @."""
    part = path.with_suffix(".part")
    part.write_text(offset)
    part.replace(path)
