from __future__ import annotations

from edge_agent.process.attempts import Attempts
from edge_agent.round.events import Task, Work
from fd_runtime.storage.store import Store
from tests.edge_agent.builders import round_id

TRAIN, PREDICT = Work(Task.TRAIN, round_id()), Work(Task.PREDICT, round_id())


def test_each_life_counts_once_however_often_it_begins():
    store = Store.open(None)
    assert [Attempts(store, boot).begin(TRAIN) for boot in (1, 1, 2, 3)] == [1, 1, 2, 3]
    life = Attempts(store, 4)
    assert [life.begin(TRAIN), life.begin(TRAIN)] == [4, 4]


def test_other_work_begins_to_count_anew():
    store = Store.open(None)
    for boot in (1, 2, 3):
        Attempts(store, boot).begin(TRAIN)
    life = Attempts(store, 4)
    assert [life.begin(PREDICT), life.begin(TRAIN), life.begin(Work(Task.TRAIN, round_id(), 1))] == [1, 1, 1]


def test_a_disk_that_takes_nothing_lets_the_work_be_done(monkeypatch):
    store = Store.open(None)
    store._execute("PRAGMA max_page_count=1")
    assert Attempts(store, 1).begin(TRAIN) == 1


def test_a_note_of_another_version_counts_for_nothing():
    store = Store.open(None)
    store.set_meta("work", b"\xff")
    assert Attempts(store, 1).begin(TRAIN) == 1
