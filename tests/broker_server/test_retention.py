"""What is remembered is bounded: rounds, days, contributions, and the pages of the database."""

import pytest

from broker_server.records.chronicle import Chronicle, CommandRecord
from broker_server.records.scribe import Scribe
from broker_server.settings import MethodSettings, RecordSettings, RoundSettings, Settings
from broker_server.voices import Absence
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Kind
from fd_runtime.storage.store import MissingBlobError
from tests.broker_server.builders import FED
from tests.broker_server.world import PROBES, World, fleet

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


YEARS_MS = 3 * 366 * DAY_S * 1000


def play_at(world, devices, rounds, now_ms):
    """Play some rounds by another clock; then it is right again."""
    right_ms, world.now_ms = world.now_ms, now_ms
    play(world, devices, rounds)
    world.now_ms = right_ms + 60_000
    world.settle()


def test_a_clock_of_1970_costs_no_records():
    world = World()
    world.now_ms = 20_000 * DAY_S * 1000
    devices = fleet(world)
    scribe = Scribe(world.store, FED, world.settings.method)
    scribe.command(CommandRecord("early", world.now_ms, "ann", "operator", "pause"))
    play(world, devices, 3)
    play_at(world, devices, 1, 12_000)
    play(world, devices, 2)
    numbers = [one.number for one in chronicle(world).rounds()]
    assert numbers == list(range(numbers[0], 0, -1))
    assert sum(one.ended_ms < DAY_S * 1000 for one in chronicle(world).rounds() if one.ended_ms) == 1
    assert all(len(chronicle(world).hearings(world.state.epoch, number)) == 3 for number in (1, 2, 3))
    assert [one.id for one in chronicle(world).commands()] == ["early"]


def test_a_clock_that_is_years_ahead_costs_a_few_records():
    world = World()
    devices = fleet(world)
    play(world, devices, 30)
    play_at(world, devices, 1, world.now_ms + YEARS_MS)
    play(world, devices, 3)
    numbers = [one.number for one in chronicle(world).rounds()]
    assert numbers == list(range(numbers[0], 10, -1))


def test_after_a_long_sleep_old_rounds_go_some_at_a_time():
    world = World(records=RecordSettings(days=2))
    devices = fleet(world)
    play(world, devices, 25)
    world.wait(10 * DAY_S)
    oldest = []
    for _ in range(4):
        play(world, devices, 1)
        oldest.append(chronicle(world).rounds()[-1].number)
    assert oldest == [11, 21, 26, 26]


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


# Bases of differences.


def alternating(tmp_path, decay=0.8):
    """Two slices of ten probes, in turn."""
    rounds = RoundSettings(minimum_online=2, pause_s=10, probes=10)
    return World(tmp_path / "s.db", rounds=rounds, method=MethodSettings(absence=Absence(decay=decay)))


def play_alternating(world, devices, number):
    """Play rounds from the next one to `number`, each device with differences to its last words on the slice."""
    last = {}
    while world.state.number <= number:
        start = world.offer.slice.start
        for device in devices:
            sent = device.contribute(seed=world.state.number, base=last.get((device.name, start)))
            last[device.name, start] = sent
        if world.state.number == number:
            return last
        world.wait(10)
    return last


@pytest.mark.parametrize("decay", [0.8, 0.0])
def test_a_difference_goes_to_the_last_words_about_its_own_slice_also_where_those_of_absent_devices_do_not_count(
    tmp_path, decay
):
    world = alternating(tmp_path, decay)
    play_alternating(world, fleet(world, "ab"), 7)
    rounds = [row.round for row in world.store.payloads(FED, Kind.CONTRIBUTION.value, "a")]
    assert rounds == [7, 6], "one for each slice"


@pytest.mark.parametrize(("missed", "is_kept"), [(11, True), (13, False)])
def test_a_base_is_kept_until_rounds_have_come_back_and_a_while_for_a_device_that_missed_some(
    tmp_path, missed, is_kept
):
    """Two slices in turn and ten rounds more: 12. Longer than that, the device is told to send in full."""
    world = alternating(tmp_path)
    a, *others = fleet(world)
    base = a.contribute()
    for device in others:
        device.contribute()
    a.die()
    for _ in range(missed):
        world.wait(10)
        for device in others:
            device.contribute(seed=world.state.number)
    a.say_state(a.birth)
    world.wait(10)
    assert (world.state.number, world.offer.slice.start) == (missed + 2, 0)
    (receipt,) = a.send(a.contribution(seed=99, base=base)[0])
    assert receipt.reason == ("" if is_kept else "unknown_base")


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ({}, 11),
        ({"probes": 10}, 12),
        ({"probes": 5}, 14),
        ({"probes": 5, "slice_rounds": 4}, 26),
        ({"probes": 5, "choose": "need"}, 60),
        ({"probes": 20, "choose": "need"}, 11),
    ],
)
def test_how_long_a_contribution_is_kept_follows_from_when_its_slice_comes_again(rounds, expected):
    assert Settings(FED, rounds=RoundSettings(**rounds)).kept_rounds(PROBES) == expected


@pytest.mark.parametrize(("decay", "least", "rounds"), [(0.8, 0.1, 10), (0.0, 0.1, 0), (0.5, 0.5, 1), (0.99, 0.1, 229)])
def test_last_words_count_for_as_many_rounds_as_their_weight_says(decay, least, rounds):
    absence = Absence(decay, least)
    assert absence.rounds == rounds
    assert absence.weight(rounds) > 0
    assert absence.weight(rounds + 1) == 0


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"days": 0}, {"replayable_rounds": -1}, {"rounds": 2}])
def test_a_policy_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="replayable_rounds lie in"):
        RecordSettings(**wrong)
