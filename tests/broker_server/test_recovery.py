"""Crashes, a lost broker, a full disk, an old backup: told through the real store."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from broker_server import journal
from broker_server.aggregator import GROUP_MESSAGES, Aggregator
from broker_server.core.events import from_journal
from broker_server.core.round import Phase
from broker_server.journal import Journal
from broker_server.settings import RoundSettings
from broker_server.work import Finished
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import DeviceState, RoundReport, Status
from fd_runtime.storage.store import Store, StoreFullError
from tests.broker_server.builders import FED, made
from tests.broker_server.world import PROBES, TOPICS, World, fleet, mean_of


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db")


# Crashes, a lost broker, a full disk, an old backup.


def test_the_same_round_goes_on_after_a_crash_and_nothing_is_lost_or_doubled(world):
    a, b, c = fleet(world)
    first = a.contribute()
    before = world.state
    world.wait(20)
    world.restart()
    assert world.state == before
    assert (world.offer.round, world.offer.remaining_s) == (before.round.id, 40)
    assert [r.status for r in a.send(first[0])] == [Status.DUPLICATE]
    codes = [first[1], b.contribute()[1], c.contribute()[1]]
    np.testing.assert_allclose(world.consensus()[1], mean_of(*codes), atol=0.01)


def test_a_journal_that_is_followed_tells_what_a_replay_tells_and_folds_each_event_once(world, monkeypatch):
    folded = []
    monkeypatch.setattr(journal, "from_journal", lambda *entry: folded.append(entry) or from_journal(*entry))
    with Store.view(world.path) as store:
        follower = Journal(store, FED)
        told = follower.follow(None)
        *first, last = fleet(world)
        for device in first:
            device.contribute()
            told = follower.follow(told)
            assert told.state == world.state
        assert folded == store.replay(FED)[1]  # each event once
        last.contribute()  # the round ends, and the state takes the place of its events
        told = follower.follow(told)
        assert (told.state, told.snapshot is None) == (world.state, False)


def test_a_journal_that_is_not_the_one_that_was_followed_is_told_from_its_beginning(world, tmp_path):
    fleet(world)[0].contribute()
    with Store.view(world.path) as store:
        told = Journal(store, FED).follow(None)
    other = World(tmp_path / "other.db")
    for device in fleet(other, "xyz"):
        device.contribute()
    with Store.view(other.path) as store:
        assert Journal(store, FED).follow(told).state == other.state


def test_a_crash_while_aggregating_repeats_it_with_the_same_bits(world, monkeypatch):
    a, b, c = fleet(world)
    a.contribute()
    b.contribute()
    with monkeypatch.context() as crash:
        crash.setattr(Aggregator, "_start", lambda *_: None)
        c.contribute()
        assert world.state.round.phase is Phase.AGGREGATING
    world.restart()
    assert world.state.round.phase is Phase.CLOSED
    once = world.state.consensus
    again = World(world.path.with_name("again.db"))
    for device in fleet(again, "cba"):
        device.contribute()
    assert [block.body for block in again.consensus()[0]] == [block.body for block in world.consensus()[0]]
    assert once.metrics == again.state.consensus.metrics


def test_a_broker_that_lost_its_retained_messages_gets_them_again(world):
    for device in fleet(world):
        device.contribute()
    world.wait(10)
    before = dict(world.link.retained)
    world.drop()
    assert world.link.retained == before


def test_nothing_is_published_twice_at_one_connection(world):
    for device in fleet(world):
        device.contribute()
    for topic in (TOPICS.round, TOPICS.consensus(0), TOPICS.server("aggregator")):
        assert len(world.link.published(topic)) == 1


def test_a_failed_aggregation_ends_the_round_with_its_reason(world, monkeypatch):
    monkeypatch.setattr("broker_server.forming.join", lambda *_, **__: 1 / 0)
    for device in fleet(world):
        device.contribute()
    assert (world.state.round.phase, world.state.round.reason) == (Phase.ABORTED, "ZeroDivisionError")
    monkeypatch.undo()
    world.wait(10)
    assert world.offer.round.number == 2


def test_a_full_disk_loses_nothing_and_the_round_goes_on_when_there_is_room(world):
    a, b, c = fleet(world)
    a.contribute()
    pages = world.store._execute("PRAGMA page_count").fetchone()[0]
    world.store._execute(f"PRAGMA max_page_count={pages}")
    for k in range(GROUP_MESSAGES):
        world.arrive("rubbish", bytes(4000 + k))
    with pytest.raises(StoreFullError):
        world.settle()
    assert world.link.history[-1][0] != "ack"
    with pytest.raises(StoreFullError):
        world.settle()
    world.store._execute("PRAGMA max_page_count=1000000")
    world.settle()
    b.contribute()
    c.contribute()
    assert world.state.round.phase is Phase.CLOSED


def test_a_server_restored_from_an_old_backup_begins_a_new_epoch_and_devices_go_on(world, tmp_path):

    a, b, c = fleet(world)
    for device in (a, b, c):
        device.contribute()
    world.store._execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = tmp_path / "backup.db"
    shutil.copy(world.path, backup)
    old_epoch = world.state.epoch
    world.wait(10)
    assert world.offer.round.number == 2
    lost = a.contribute(seed=1)
    world.restart(backup)
    assert world.state.epoch != old_epoch
    assert world.presence.epoch == world.state.epoch
    world.wait(10)
    assert world.offer.round.epoch == world.state.epoch
    assert [r.reason for r in a.send(lost[0], round_id=RoundId(FED, old_epoch, 2))] == ["foreign_epoch"]
    assert [r.reason for r in a.send(a.contribution(seed=2, base=lost)[0])] == ["unknown_base"]
    for device in (a, b, c):
        device.contribute(seed=2)
    assert world.state.round.phase is Phase.CLOSED


def test_its_own_offer_told_back_is_no_proof_of_a_backup(world):
    fleet(world)
    epoch = world.state.epoch
    world.arrive(TOPICS.round, world.link.retained[TOPICS.round])
    world.settle()
    assert world.state.epoch == epoch


def test_an_offer_of_another_epoch_is_no_proof_of_a_backup(world):
    fleet(world)
    epoch = world.state.epoch
    stale = replace(world.offer, round=RoundId(FED, epoch ^ 2, 7))
    world.arrive(TOPICS.round, codec.encode(stale))
    world.settle()
    assert world.state.epoch == epoch


def test_births_that_are_told_again_are_not_journalled_again(world):
    fleet(world)
    before = world.store.replay(FED)
    fleet(world)
    assert world.store.replay(FED) == before


def test_a_full_disk_under_a_contribution_is_not_taken_for_poison(world, monkeypatch):
    def no_room(_data):
        raise StoreFullError(world.path, "database or disk is full")

    a = fleet(world)[0]
    payload, _ = a.contribution()
    monkeypatch.setattr(world.store, "put_blobs", no_room)
    with pytest.raises(StoreFullError):
        a.send(payload)
    monkeypatch.undo()
    world.settle()
    assert [receipt.status for receipt in world.receipts("a")] == [Status.STORED]


def test_reports_are_counted_and_told_on(tmp_path):
    told = []
    world = World(tmp_path / "s.db", on_report=lambda device, report: told.append((device, report)))
    fleet(world)
    report = RoundReport(world.offer.round, sha256(b"z"), accepted=True, metrics={"accuracy": 0.9})
    world.arrive(TOPICS.report("a"), codec.encode(report))
    world.settle()
    assert told == [("a", report)]
    assert world.server.counters["report.accepted"] == 1


def test_counters_survive_a_crash_after_the_round(world):
    for device in fleet(world):
        device.contribute()
    world.wait(10)
    world.restart()
    assert world.server.counters["contribution.stored"] >= 2


def test_settings_that_do_not_fit_the_public_set_are_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="21, the public set has 20"):
        World(tmp_path / "s.db", rounds=RoundSettings(probes=21))


def test_the_journal_is_folded_even_if_no_round_ends(world, monkeypatch):
    monkeypatch.setattr("broker_server.journal.SNAPSHOT_EVENTS", 10)
    monkeypatch.setattr("broker_server.aggregator.GROUP_MESSAGES", 7)
    for boot in range(1, 26):
        world.arrive(TOPICS.state("a"), codec.encode(DeviceState(boot, online=True, task=PROBES.task)))
    world.settle()
    entries = len(world.store.replay(FED)[1])
    assert 0 < entries < 10
    before = world.state
    world.restart()
    assert world.state == before
    for boot in range(30, 40 - entries):
        world.arrive(TOPICS.state("a"), codec.encode(DeviceState(boot, online=True, task=PROBES.task)))
    world.settle()
    assert world.store.replay(FED)[1] == [], "what was in the journal at the start counts as well"


def test_a_server_that_leaves_says_so(world):
    world.server.leave()
    assert not world.presence.online


def test_an_old_result_of_the_worker_changes_nothing(world):
    fleet(world)
    before = world.state

    world.link.events.put(Finished((made(),)))
    world.settle()
    assert world.state is before
