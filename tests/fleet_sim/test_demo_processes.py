"""Programs of a demo are ended by their pid, gently first, and tell their last words when they fail."""

import os
import signal
import sys
from threading import Timer
from types import SimpleNamespace

import pytest
from rich.progress import Progress

from fleet_sim.demo import play
from fleet_sim.real.processes import Program, ProgramEndedError, stop_all
from tests.support.patience import wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
POLITE = "import time; print('up', flush=True); time.sleep(60)"


def start(tmp_path, name, code):
    program = Program(name, [sys.executable, "-c", code], tmp_path / f"{name}.log")
    wait_until(lambda: "up" in (tmp_path / f"{name}.log").read_text())
    return program


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_are_ended_even_one_that_will_not(tmp_path, monkeypatch):
    monkeypatch.setattr("fleet_sim.real.processes._STOP_S", 0.5)
    programs = [start(tmp_path, "polite", POLITE), start(tmp_path, "stubborn", STUBBORN)]
    pids = [program._process.pid for program in programs]
    stop_all(programs)
    assert not any(is_alive(pid) for pid in pids)


def test_one_that_was_killed_starts_again_and_writes_on_in_its_log(tmp_path):
    program = start(tmp_path, "polite", POLITE)
    program.kill()
    with pytest.raises(ProgramEndedError):
        program.check()
    ended = program.pid
    program.start_again()
    wait_until(lambda: (tmp_path / "polite.log").read_text().count("up") == 2)
    program.check()
    assert is_alive(program.pid)
    assert program.pid != ended
    program.kill()


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal's foreground: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path):
    program = start(tmp_path, "stubborn", STUBBORN)
    second = Timer(0.2, signal.raise_signal, [signal.SIGINT])
    second.start()
    with pytest.raises(KeyboardInterrupt):
        stop_all([program])
    assert not is_alive(program._process.pid)


def test_a_program_that_ended_says_why(tmp_path):
    program = Program("device-3", [sys.executable, "-c", "raise SystemExit('no bundle')"], tmp_path / "log")
    program._process.wait()
    with pytest.raises(ProgramEndedError, match="device-3 ended with exit code 1:\nno bundle"):
        program.check()


def test_only_a_failure_counts_where_a_program_may_end(tmp_path):
    program = Program("baselines", [sys.executable, "-c", ""], tmp_path / "log")
    program._process.wait()
    program.check(may_end=True)
    with pytest.raises(ProgramEndedError):
        program.check()


def test_baselines_that_end_without_their_results_are_not_waited_for(tmp_path):
    said = [sys.executable, "-c", "print('nothing was played')"]
    programs = [Program(f"baselines-{share}", said, tmp_path / f"baselines-{share}.log") for share in range(2)]
    with pytest.raises(ProgramEndedError, match="nothing was played"):
        play._wait_for_baselines(programs, SimpleNamespace(folder=tmp_path), Progress(disable=True))
