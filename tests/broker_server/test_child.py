"""A child is started again, ends with its server however that ends, and never troubles it."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from broker_server.child import Child
from tests.support.programs import running

PATIENCE_S = 60.0
READS_TO_THE_END = "import sys; print('up', flush=True); sys.stdin.buffer.read()"


@pytest.fixture(autouse=True)
def warnings_are_heard(caplog):
    """Other tests silence the server's log for the process that they run in."""
    caplog.set_level(logging.WARNING, "broker-server")


@pytest.fixture
def children():
    made = []

    def start(*code):
        child = Child("child", [sys.executable, "-c", *code], first_pause_s=0.01)
        made.append(child)
        child.start()
        return child

    yield start
    for child in made:
        child.stop()


def eventually(claim):
    end_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def lives(pid):
    """A process that has ended and that nobody has asked about yet does not live."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_is_killed_lives_again(children):
    child = children(READS_TO_THE_END)
    eventually(lambda: child.pid)
    first = child.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: child.pid not in {None, first})


def test_a_child_that_fails_is_tried_again_and_again_ever_more_slowly(children, tmp_path, caplog):
    log = tmp_path / "log"
    children(f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)")
    eventually(lambda: log.exists() and len(log.read_text()) >= 4)
    assert "the child ended (exit code 3)" in caplog.text


def test_a_program_that_is_not_there_is_no_reason_to_fail(caplog):
    child = Child("child", ["/nowhere/program"], first_pause_s=0.01)
    child.start()
    eventually(lambda: "No such file" in caplog.text)
    child.stop()


def test_stopping_ends_the_child_and_it_stays_ended(children):
    child = children(READS_TO_THE_END)
    eventually(lambda: child.pid)
    pid = child.pid
    child.stop()
    assert not lives(pid)
    assert child.pid is None


def test_a_child_that_will_not_go_is_killed(children, monkeypatch):
    monkeypatch.setattr("broker_server.child._FAREWELL_S", 0.3)
    child = children("import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.buffer.read()")
    eventually(lambda: child.pid)
    time.sleep(0.2)
    pid = child.pid
    child.stop()
    eventually(lambda: not lives(pid))


def test_a_child_learns_of_a_parent_that_was_killed(tmp_path):
    program = f"""
import sys, time
from broker_server.child import Child
child = Child("child", [sys.executable, "-c", {READS_TO_THE_END!r}])
child.start()
while child.pid is None:
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""
    with running([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        pid = int(next(line for line in parent.stdout if line.strip().isdigit()))
        assert lives(pid)
        parent.kill()
        parent.wait()
        eventually(lambda: not lives(pid))
