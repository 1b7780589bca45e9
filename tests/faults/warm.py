"""Processes that have imported everything already: a case costs what it does, not what an interpreter does first.

    a program, `python -m tests.faults.warm MODULE`: a request a line -> a fork: MODULE.FUNCTION(*arguments), to its end

A fork has done nothing but import. It may wait, stopped, until somebody traces it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: as `subprocess` says it, and what it said."""

    returncode: int
    out: str
    errors: str


class Warm:
    """One program that forks the functions of a module; one fork at a time."""

    def __init__(self, module: str, folder: Path, environment: Mapping[str, str] = {}) -> None:
        """Start it, in `folder`, with more in its environment than this process has."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.faults.warm", module]
        whole = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, env=whole, **pipes)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    @contextmanager
    def started(self, function: str, *arguments: Any, waits: bool = False) -> Iterator[Fork]:
        """Yield a fork that runs, or `waits`; at the end it is waited for, and killed where it takes too long."""
        out, errors = self._folder / "out", self._folder / "errors"
        pid = self._ask([function, list(arguments), str(out), str(errors), waits])
        fork = Fork(pid)
        try:
            yield fork
            end_s = time.monotonic() + PATIENCE_S
            while is_alive(pid) and time.monotonic() < end_s:
                time.sleep(0.002)
        finally:
            fork.kill()
            status = self._ask("wait")
            fork.ended = Ended(os.waitstatus_to_exitcode(status), out.read_text(), errors.read_text())

    def run(self, function: str, *arguments: Any) -> Ended:
        with self.started(function, *arguments) as fork:
            pass
        assert fork.ended is not None
        return fork.ended

    def _ask(self, words: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        is_there, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert is_there, f"no answer to {words} after {PATIENCE_S:.0f} s"
        return int(self._process.stdout.readline())


@dataclass(slots=True)
class Fork:
    """A process, and once it is over, how it ended."""

    pid: int
    ended: Ended | None = None

    def is_alive(self) -> bool:
        return is_alive(self.pid)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended, as long as patience lasts."""
        end_s = time.monotonic() + PATIENCE_S
        while self.is_alive() and time.monotonic() < end_s:
            time.sleep(0.005)

    def kill(self) -> None:
        """End it and all that it has started: a machine without power has no processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def main(module: str) -> None:
    functions = importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    pid = 0
    for line in sys.stdin:
        words = json.loads(line)
        if words == "wait":
            answers.write(f"{os.waitpid(pid, 0)[1]}\n")
        else:
            pid = os.fork()
            if pid == 0:
                _be(functions, *words)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # so does the fork: whoever is first, nobody kills a group that is not there yet
            if words[4]:
                os.waitpid(pid, os.WUNTRACED)
            answers.write(f"{pid}\n")
        answers.flush()


def _be(functions: Any, name: str, arguments: Sequence[Any], out: str, errors: str, waits: bool) -> None:  # noqa: FBT001
    os.setpgid(0, 0)
    for number, path in ((1, out), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    status = 70
    try:
        if waits:
            os.kill(os.getpid(), signal.SIGSTOP)
        status = int(getattr(functions, name)(*arguments) or 0)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - of a process that ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
