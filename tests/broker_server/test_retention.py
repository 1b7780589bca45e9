"""What is remembered is bounded: rounds, days, contributions, and the pages of the database."""

import pytest

from broker_server.chronicle import Chronicle, CommandRecord
from broker_server.scribe import Scribe
from broker_server.settings import RecordSettings, RoundSettings
from fd_protocol.errors import InvalidValueError
from fd_runtime.store import MissingBlobError
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet

DAY_S = 86_400


def play(world, devices, rounds):
    for _ in range(rounds):
        world.link.history.clear()
        for device in devices:
            device.contribute(seed=world.state.number)
        world.wait(10)


def chronicle(world):
    return Chronicle(world.store, FED)


def replayable(world, number):
    """Whether what was heard in a round lies in the store still."""
    try:
        for one in chronicle(world).hearings(world.state.epoch, number):
            world.store.blob(one.labels)
        trust = chronicle(world).round(world.state.epoch, number).trust
        return not trust or bool(world.store.blob(trust))
    except MissingBlobError:
        return False


def test_only_the_last_rounds_are_kept_with_their_hearings():
    world = World(records=RecordSettings(rounds=3, replayable_rounds=0))
    play(world, fleet(world), 6)
    assert [one.number for one in chronicle(world).rounds()] == [7, 6, 5, 4]
    heard = [len(chronicle(world).hearings(world.state.epoch, number)) for number in range(1, 8)]
    assert heard == [0, 0, 0, 3, 3, 3, 0]


def test_rounds_and_commands_are_forgotten_after_some_days():
    world = World(records=RecordSettings(days=2), rounds=RoundSettings(minimum_online=3, pause_s=DAY_S))
    devices = fleet(world)
    scribe = Scribe(world.store, FED, world.settings.method)
    scribe.command(CommandRecord("old", world.now_ms, "ann", "operator", "pause"))
    scribe.command(CommandRecord("new", world.now_ms + 3_000 * DAY_S, "ann", "operator", "pause"))
    for _ in range(5):
        for device in devices:
            device.contribute(seed=world.state.number)
        world.wait(DAY_S)
    assert [one.number for one in chronicle(world).rounds()] == [6, 5, 4, 3]
    assert [one.id for one in chronicle(world).commands()] == ["new"]


def test_contributions_maps_and_trust_of_the_replayable_rounds_are_kept_and_no_others():
    world = World(records=RecordSettings(replayable_rounds=2))
    devices = fleet(world)
    devices[0].send_map([0] * 20)
    play(world, devices, 5)
    assert [replayable(world, number) for number in (1, 2, 3, 4, 5)] == [False, False, False, True, True]


def test_nothing_is_kept_for_replay_where_the_operator_wants_none():
    world = World(records=RecordSettings(replayable_rounds=0))
    play(world, fleet(world), 2)
    assert not replayable(world, 1)


def test_500_rounds_take_no_more_room_than_100(monkeypatch):
    monkeypatch.setattr("broker_server.aggregator.GROUP_S", 0.0)
    world = World(records=RecordSettings(rounds=40, replayable_rounds=3))
    devices = fleet(world)
    play(world, devices, 100)
    pages, blobs = sizes(world)
    play(world, devices, 400)
    assert world.state.number == 501
    assert sizes(world)[0] <= pages + 1
    assert sizes(world)[1] == blobs


def sizes(world):
    """Pages of the database, and blobs in it."""
    counts = [world.store._execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("blobs", "hearings")]
    assert counts[1] <= 41 * 3
    return world.store._execute("PRAGMA page_count").fetchone()[0], counts[0]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"days": 0}, {"replayable_rounds": -1}, {"rounds": 2}])
def test_a_policy_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="replayable_rounds lie in"):
        RecordSettings(**wrong)
