from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.process.heart import Heart
from edge_agent.process.notices import Alarm, Beat
from tests.support.patience import wait_until


class Chest:
    """A heart that is looked at by hand."""

    def __init__(self, hang_s=10.0):
        self.said, self.now_s = [], 0.0
        self.heart = Heart(self.said.append, hang_s, clock=lambda: self.now_s)

    def look(self, after_s=1.0):
        """Return what it says after a while."""
        self.now_s += after_s
        before = len(self.said)
        self.heart.look()
        return self.said[before:]


@pytest.fixture
def chest():
    return Chest()


def test_it_beats_while_nobody_has_work(chest):
    chest.heart.watch("the job")
    assert [chest.look() for _ in range(3)] == [[Beat()]] * 3


def test_it_beats_once_for_each_time_that_all_who_have_work_got_on_with_it(chest):
    job, loop = chest.heart.watch("the job"), chest.heart.watch("inference")
    job.beat()
    loop.beat()
    assert chest.look() == [Beat()]
    loop.beat()
    assert chest.look() == []
    job.beat()
    assert chest.look() == [Beat()]


def test_a_thread_that_waits_for_work_may_wait_for_ever(chest):
    job, loop = chest.heart.watch("the job"), chest.heart.watch("inference")
    loop.rest()
    for _ in range(3):
        job.beat()
        assert chest.look(after_s=100.0) == [Beat()]


def test_who_stands_still_is_named_once_before_patience_ends(chest):
    job, loop = chest.heart.watch("the job"), chest.heart.watch("inference")
    job.beat()
    loop.beat()
    chest.look()
    loop.beat()
    said = [chest.look(after_s=2.0) for _ in range(5)]
    assert said == [[], [], [Alarm("hang", "the job stood still for 6.0 s")], [], []]
    job.beat()
    loop.beat()
    assert chest.look() == [Beat()]


ORPHAN = """
import os, sys, time
from edge_agent.process.heart import Heart
supervisor = os.getpid()
if child := os.fork():
    print(child)
    sys.exit(0)
os.close(1)
Heart(lambda _: None, 0.1, lambda: os.getppid() != supervisor).start()
while True:
    time.sleep(60)  # as a library does that hangs
"""


def is_gone(pid):
    """Whether a process has ended; nobody waits for an orphan in a small container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_it_ends_a_process_whose_supervisor_is_gone_whatever_that_is_in():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True)
    wait_until(lambda: is_gone(int(done.stdout)))
