"""Messages that share a transaction: each is dealt with as if it had come alone, and they cost one step."""

import numpy as np
import pytest

from broker_server.accepted import Accepted, Payload
from broker_server.core import round as rounds
from broker_server.core.events import ContributionsStored, Stored, from_journal
from broker_server.core.federation import Federation, step
from broker_server.core.round import Phase
from broker_server.records.chronicle import Chronicle
from broker_server.records.quarantine import Quarantine
from broker_server.settings import MethodSettings, RoundSettings
from fd_protocol import cbor, codec
from fd_protocol.competence import FAR
from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, Status
from fd_protocol.parts import split
from fd_runtime.storage.store import PayloadRow, Store, StoreFullError
from tests.broker_server import builders
from tests.broker_server.builders import FED, opened, round_id, stored
from tests.broker_server.world import TOPICS, World, fleet, mean_of


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db")


def arrive(world, device, payload, *, round_id=None, kind=Kind.CONTRIBUTION, part_bytes=60_000):
    """Let a payload come, and leave the server to take it in later."""
    for part in split(payload, round_id or world.offer.round, kind, part_bytes=part_bytes):
        world.arrive(TOPICS.upload(device.name), codec.encode(part))


def statuses(world, device):
    return [(receipt.status, receipt.reason) for receipt in world.receipts(device.name)]


def journal(world):
    return [from_journal(*entry) for entry in world.store.replay(FED)[1]]


STORED, DUPLICATE = (Status.STORED, ""), (Status.DUPLICATE, "")


# One step.


def test_contributions_of_a_group_are_one_event(world):
    devices = fleet(world, "abcd")
    before = len(journal(world))
    payloads = [device.contribution()[0] for device in devices[:2]]
    for device, payload in zip(devices, payloads, strict=False):
        arrive(world, device, payload)
    world.settle()
    sent = zip("ab", payloads, strict=True)
    told = tuple(Stored(name, sha256(payload), len(payload)) for name, payload in sent)
    assert journal(world)[before:] == [ContributionsStored(world.offer.round, told)]
    assert (world.state.round.heard, world.state.round.up_bytes) == (2, sum(map(len, payloads)))


def test_what_comes_between_two_contributions_stands_between_them(world):
    a, b, _ = fleet(world)
    before = len(journal(world))
    arrive(world, a, a.contribution()[0])
    world.device("d")
    arrive(world, b, b.contribution()[0])
    world.settle()
    kinds = [type(event).__name__ for event in journal(world)[before:]]
    assert kinds == ["ContributionsStored", "DeviceSeen", "ContributionsStored"]


def test_a_contribution_behind_a_new_epoch_is_of_the_old_one(world):
    a, b, _ = fleet(world)
    current, payload = world.offer.round, b.contribution()[0]
    overtaken = builders.offer(number=5, epoch=current.epoch)
    arrive(world, a, a.contribution()[0])
    world.arrive(TOPICS.round, codec.encode(overtaken))
    arrive(world, b, payload, round_id=current)
    world.settle()
    assert statuses(world, a) == [STORED]
    assert statuses(world, b) == [(Status.REFUSED, "foreign_epoch")]


def test_a_group_in_which_all_are_in_ends_the_offer_with_all_that_it_brought(world):
    devices = fleet(world)
    late = world.device("d")
    codes = []
    for device in (*devices, late):
        payload, code = device.contribution()
        arrive(world, device, payload)
        codes.append(code)
    world.settle()
    assert (world.state.round.phase, world.state.round.heard) == (Phase.CLOSED, 4)
    np.testing.assert_allclose(world.consensus()[1], mean_of(*codes), atol=0.01)


def test_a_journal_of_single_contributions_is_read_as_before():
    item = {1: {1: FED, 2: 7, 3: 1}, 2: "a", 3: sha256(b"a"), 4: 90}
    event = from_journal("ContributionStored", cbor.encode(item))
    assert event == ContributionsStored(round_id(), (Stored("a", sha256(b"a"), 90),))
    state = rounds.step(rounds.opened(opened()), event)
    assert (state.heard, state.up_bytes, state.contributions) == (1, 90, (("a", sha256(b"a")),))


def joined(*events):
    return ContributionsStored(events[0].round, tuple(one for event in events for one in event.contributions))


def test_together_or_one_by_one_is_the_same():
    events = [stored("a"), stored("a", payload="other"), stored("d"), stored("b")]
    state = step(Federation(epoch=builders.EPOCH), opened())
    alone = state
    for event in events:
        alone = step(alone, event)
    assert step(state, joined(*events)) == alone
    assert dict(alone.round.contributions)["a"] == sha256(b"a")


# As if each had come alone.


def test_a_payload_that_comes_twice_in_a_group_is_stored_once(world):
    a = fleet(world)[0]
    payload, _ = a.contribution()
    arrive(world, a, payload)
    arrive(world, a, payload)
    world.settle()
    assert statuses(world, a) == [STORED, DUPLICATE]
    assert world.state.round.heard == 1
    (told,) = Chronicle(world.store, FED).devices()[:1]
    assert (told.rounds, told.up_bytes) == (1, 2 * len(payload))


def test_a_second_payload_in_a_group_is_refused(world):
    a = fleet(world)[0]
    first = a.contribution()[0]
    arrive(world, a, first)
    arrive(world, a, a.contribution(seed=1)[0])
    world.settle()
    assert statuses(world, a) == [STORED, (Status.REFUSED, "second_payload")]
    assert dict(world.state.round.contributions) == {"a": sha256(first)}
    heard = Chronicle(world.store, FED).hearings(world.state.epoch, 1)
    assert sorted((one.status, one.reason) for one in heard) == [("refused", "second_payload"), ("stored", "")]


def test_a_difference_to_what_came_in_the_same_group_is_understood(tmp_path):
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=0)
    world = World(tmp_path / "s.db", rounds=rounds, method=MethodSettings("mean-probabilities"))
    a, b, c = fleet(world)
    first_round, late = world.offer.round, c.contribution()
    for device in (a, b):
        device.contribute()
    world.wait(60)
    assert world.offer.round.number == 2
    arrive(world, c, late[0], round_id=first_round)
    arrive(world, c, c.contribution(seed=1, base=late)[0])
    world.settle()
    assert statuses(world, c) == [STORED, STORED]


def test_the_last_of_several_maps_in_a_group_stays(world):
    a = fleet(world)[0]
    near, far = a.map([0] * 20), a.map([FAR] * 20)
    arrive(world, a, near, kind=Kind.COMPETENCE)
    world.settle()
    for payload in (far, near, far):
        arrive(world, a, payload, kind=Kind.COMPETENCE)
    world.settle()
    assert statuses(world, a) == [STORED] * 4, "a map that gave way is no duplicate"
    (row,) = world.store.payloads(FED, "competence", "a")
    assert world.store.blob(row.content) == far


def test_a_payload_in_parts_is_joined_within_a_group(world):
    a, b, _ = fleet(world)
    payload, _ = a.contribution()
    arrive(world, a, payload, part_bytes=20)
    arrive(world, b, b.contribution()[0])
    world.settle()
    assert statuses(world, a) == statuses(world, b) == [STORED]
    assert world.store.parts(FED, "contribution", "a", sha256(payload)) == []


def test_what_is_accepted_is_told_as_if_it_were_stored():
    store = Store.open(None)
    accepted = Accepted(store, FED)
    rows = [PayloadRow("contribution", "a", number, 7, b"p" * 32, sha256(b"%d" % number)) for number in (1, 2, 3)]
    store.put_payload(FED, rows[1])
    for row in (rows[2], rows[0]):
        accepted.add(Payload(row, b"%d" % row.round))
    assert accepted.rows(Kind.CONTRIBUTION, "a") == rows[::-1]
    assert accepted.rows(Kind.COMPETENCE, "a") == accepted.rows(Kind.CONTRIBUTION, "b") == []
    assert accepted.content(rows[0]) == b"1"
    accepted.write()
    assert store.payloads(FED, "contribution", "a") == rows[::-1]
    assert store.blob(rows[2].content) == b"3"


# What breaks.


def breaking_over(name):
    """The rows of a device cannot be written."""
    put = Store.put_payloads

    def put_payloads(self, federation, rows):
        if any(row.device == name for row in rows):
            raise OverflowError(name)
        put(self, federation, rows)

    return put_payloads


def test_what_cannot_be_written_is_set_aside_and_all_else_of_its_group_is_kept(world, monkeypatch):
    devices = fleet(world)
    monkeypatch.setattr(Store, "put_payloads", breaking_over("b"))
    for device in devices:
        arrive(world, device, device.contribution()[0])
    world.settle()
    assert dict(world.state.round.contributions).keys() == {"a", "c"}
    assert [statuses(world, device) for device in devices] == [[STORED], [], [STORED]]
    assert [kept.reason for kept in Quarantine(world.store, FED).kept()] == ["error"]
    assert world.server.counters["set_aside.error"] == 1
    assert world.server.counters["contribution.stored"] == 2
    acks = [topic for verb, topic, _ in world.link.history if verb == "ack" and "/up/" in topic]
    assert sorted(acks) == sorted(TOPICS.upload(device.name) for device in devices)


def test_a_full_disk_while_a_group_is_taken_one_by_one_loses_none_of_the_rest(world, monkeypatch):
    devices = fleet(world)
    put, calls = breaking_over("a"), []

    def fill_up(self, federation, rows):
        calls.append(rows)
        if len(calls) == 4:  # the group, a alone, b alone, c alone
            raise StoreFullError(self.path, "database or disk is full")
        put(self, federation, rows)

    monkeypatch.setattr(Store, "put_payloads", fill_up)
    for device in devices:
        arrive(world, device, device.contribution()[0])
    with pytest.raises(StoreFullError):
        world.settle()
    assert dict(world.state.round.contributions).keys() == {"b"}
    world.settle()
    assert dict(world.state.round.contributions).keys() == {"b", "c"}
    assert world.server.counters["contribution.stored"] == 2


def test_what_was_counted_in_a_group_that_failed_is_counted_once(world, monkeypatch):
    a = fleet(world)[0]

    def no_room(*_):
        raise StoreFullError(None, "database or disk is full")

    world.arrive("rubbish", b"x")
    arrive(world, a, a.contribution()[0])
    with monkeypatch.context() as full:
        full.setattr(Store, "put_payloads", no_room)
        for _ in range(3):
            with pytest.raises(StoreFullError):
                world.settle()
    world.settle()
    assert world.server.counters["set_aside.foreign_topic"] == world.server.counters["contribution.stored"] == 1


def test_a_round_whose_first_record_was_lost_with_its_transaction_is_told_in_full(world, monkeypatch):
    for name in "ab":
        world.device(name)
    world.arrive(TOPICS.state("c"), codec.encode(world.device("b").birth))
    with monkeypatch.context() as full:
        # The second commit from here is that of the round's opening.
        commits, execute = [], Store._execute

        def fail_once(self, statement, values=()):
            if statement == "COMMIT":
                commits.append(statement)
                if len(commits) == 2:
                    raise StoreFullError(self.path, "database or disk is full")
            return execute(self, statement, values)

        full.setattr(Store, "_execute", fail_once)
        with pytest.raises(StoreFullError):
            world.settle()
    world.settle()
    (told,) = Chronicle(world.store, FED).rounds()
    assert (told.number, told.method, told.quorum, told.opened_ms) == (1, "competence", 2, world.now_ms)
    assert told.offer
