from __future__ import annotations

import resource
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edge_agent.care.vitals import Vitals
from edge_agent.process import standing as standings
from edge_agent.process.herald import Herald
from edge_agent.process.standing import Standing

OFFLINE = Standing(Vitals(7, 1, 0, link="gone"), "idle", "unreachable", "see the network")
ONLINE = Standing(Vitals(7, 1, 0, is_connected=True), "idle")


class Systemd:
    """A notifier that keeps what it is told."""

    def __init__(self):
        self.told = []

    def tell(self, **values):
        self.told.append(values)

    def close(self):
        pass

    def heard(self, name):
        return [values[name] for values in self.told if name in values]


class Tower:
    def __init__(self, path):
        self.systemd, self.path, self.now_s = Systemd(), path, 0.0
        self.herald = Herald(self.systemd, path, clock=lambda: self.now_s)

    def turn(self, standing, after_s=5.0):
        self.now_s += after_s
        self.herald.turn(standing)


@pytest.fixture
def tower(tmp_path):
    return Tower(tmp_path / "standing.json")


def test_ready_is_said_once_and_only_when_the_broker_has_taken_the_device_in(tower):
    for _ in range(3):
        tower.turn(OFFLINE)
    assert tower.systemd.heard("READY") == []
    for _ in range(3):
        tower.turn(ONLINE)
    assert tower.systemd.heard("READY") == [1]


def test_until_then_each_turn_asks_for_more_time_to_start(tower):
    tower.turn(OFFLINE)
    tower.turn(OFFLINE)
    assert tower.systemd.heard("EXTEND_TIMEOUT_USEC") == [60_000_000, 60_000_000]
    assert tower.systemd.heard("WATCHDOG") == []


def test_a_device_without_a_network_is_ready_after_half_a_minute_and_says_why_it_is_alone(tower):
    for _ in range(6):
        tower.turn(OFFLINE)
    assert tower.systemd.heard("READY") == [1]
    assert tower.systemd.told[-1]["STATUS"] == "idle; not connected: gone (see the network)"


def test_the_watchdog_is_fed_by_turns_alone_and_by_few_of_many(tower):
    tower.turn(ONLINE)
    for _ in range(100):
        tower.turn(ONLINE, after_s=0.1)
    assert 8 <= len(tower.systemd.heard("WATCHDOG")) <= 10
    before = len(tower.systemd.told)
    tower.now_s += 1000.0
    assert len(tower.systemd.told) == before


def test_a_status_is_said_when_it_changes(tower):
    for standing in (ONLINE, ONLINE, OFFLINE, ONLINE):
        tower.turn(standing)
    assert tower.systemd.heard("STATUS")[-2:] == [OFFLINE.line, ONLINE.line]


def test_what_is_read_is_what_was_last_said(tower):
    tower.turn(OFFLINE)
    assert standings.load(tower.path) == OFFLINE
    told = replace(ONLINE, alarms={"drift": "inputs are strange"}, measured={"p50_ms": 3.5}, lost={"dropped": 2})
    tower.turn(told)
    assert standings.load(tower.path) == told


def test_numbers_alone_are_written_once_a_minute(tower):
    written = []
    for second in range(130):
        tower.turn(replace(ONLINE, measured={"second": float(second)}), after_s=1.0)
        written.append(standings.load(tower.path).measured["second"])
    assert sorted(set(written)) == [0, 60, 120]


def test_a_device_that_ends_says_so_and_leaves_no_standing(tower):
    tower.turn(ONLINE)
    tower.herald.stop()
    assert tower.systemd.heard("STOPPING") == [1]
    assert standings.load(tower.path) is None


def test_a_folder_that_is_gone_or_torn_text_is_no_standing(tower, tmp_path):
    tower.herald = Herald(tower.systemd, tmp_path / "nowhere" / "standing.json", clock=lambda: tower.now_s)
    tower.turn(ONLINE)
    tower.path.write_bytes(standings.to_json(ONLINE)[:-9])
    assert standings.load(tower.path) is None


@contextmanager
def full_disk():
    """RLIMIT_FSIZE: no file takes a byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_it_cannot_be_written_nothing_is_better_than_what_was_so_before(tower):
    tower.turn(ONLINE)
    with full_disk():
        tower.turn(OFFLINE)
    assert standings.load(tower.path) is None
    tower.turn(OFFLINE)
    assert standings.load(tower.path) == OFFLINE
