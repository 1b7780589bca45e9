"""What an operator orders is done once, whatever the power supply does, and whoever gave it is told."""

import json

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.core.round import Phase
from broker_server.orders import Order, Spool, new_order, place_order
from broker_server.records.chronicle import Chronicle
from fd_protocol.errors import InvalidValueError
from tests.broker_server.served import serving
from tests.broker_server.world import World, fleet


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "orders"


@pytest.fixture
def world(tmp_path, folder):
    return World(tmp_path / "server.db", spool=Spool(folder))


# The spool.


def test_an_order_comes_out_of_the_spool_as_it_went_in(folder):
    order = new_order("abort", who="ada", role="viewer", at_ms=7, arguments={"reason": "wrong probes"})
    place_order(folder, order)
    (placed,) = Spool(folder).waiting()
    assert placed.order == order
    assert json.loads(placed.path.read_text())["command"] == "abort"
    Spool(folder).remove(placed)
    assert Spool(folder).waiting() == []


def test_orders_come_in_the_order_in_which_they_were_given(folder):
    for at_ms in (2_000, 10_000, 300):
        place_order(folder, new_order("pause", who="ada", at_ms=at_ms))
    assert [placed.order.at_ms for placed in Spool(folder).waiting()] == [300, 2_000, 10_000]


def test_only_its_owner_may_look_into_the_spool(folder):
    place_order(folder, new_order("pause", who="ada", at_ms=0))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_no_order_is_put_aside(folder):
    folder.mkdir()
    (folder / "1.json").write_text('{"command": "pause"}')
    assert Spool(folder).waiting() == []
    assert [path.name for path in folder.iterdir()] == ["1.refused"]


def test_an_order_says_nothing_that_a_log_could_not_bear():
    with pytest.raises(InvalidValueError):
        new_order("abort", who="ada", at_ms=0, arguments={"reason": "a\nb"})


# What each order does.


def test_while_paused_no_round_opens_and_the_open_one_goes_on(world):
    a, b, c = fleet(world)
    assert world.give("pause").outcome == "paused; round 1 goes on"
    for device in (a, b, c):
        device.contribute()
    world.wait(1_000)
    assert (world.state.number, world.state.round.phase) == (1, Phase.CLOSED)
    assert world.give("resume").is_obeyed
    assert world.state.number == 2


def test_a_round_is_aborted_with_the_operators_reason_and_the_next_follows_the_pause(world):
    fleet(world)[0].contribute()
    assert world.give("abort", reason="wrong probes").outcome == "round 1 aborted"
    assert (world.state.round.phase, world.state.round.reason) == (Phase.ABORTED, "operator: wrong probes")
    world.wait(9)
    assert world.state.number == 1
    world.wait(1)
    assert world.state.number == 2


def test_nothing_is_aborted_where_no_round_is_open(world):
    answer = world.give("abort")
    assert (answer.is_obeyed, answer.outcome) == (False, "no round is open")


def test_an_ordered_round_waits_neither_for_devices_nor_for_its_time(world):
    world.device("a")
    assert world.state.number == 0
    assert world.give("round-now").outcome == "round 1 opens"
    assert (world.state.round.phase, world.state.round.invited) == (Phase.OFFERED, 1)


def test_an_ordered_round_opens_though_the_federation_is_paused_and_stays_the_only_one(world):
    world.give("pause")
    fleet(world)
    world.give("round-now")
    for device in fleet(world):
        device.contribute()
    world.wait(1_000)
    assert world.state.number == 1


def test_two_rounds_are_never_open_at_once(world):
    fleet(world)
    answer = world.give("round-now")
    assert (answer.is_obeyed, world.state.number) == (False, 1)


def test_an_unknown_order_is_refused_and_goes(world, folder):
    assert world.give("dance").outcome == "no such command: dance"
    assert list(folder.iterdir()) == []


# Whatever happens.


def test_an_order_that_is_found_again_after_a_crash_is_not_done_again(world, folder, monkeypatch):
    fleet(world)
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda *_: None)
        world.give("abort")
    world.wait(10)
    assert world.state.number == 2
    world.restart()
    assert (world.state.number, world.state.round.phase) == (2, Phase.OFFERED)
    assert list(folder.iterdir()) == []


def test_every_order_is_written_down_once_with_who_gave_it_and_what_came_of_it(world, monkeypatch):
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda *_: None)
        world.give("abort", reason="wrong probes")
        world.wait(1)
    world.restart()
    (record,) = Chronicle(world.store, "demo").commands()
    assert (record.who, record.role, record.command, record.outcome) == ("ada", "operator", "abort", "no round is open")
    assert record.arguments == {"reason": "wrong probes"}


def test_what_was_ordered_survives_a_crash(world):
    world.give("pause")
    world.restart()
    fleet(world)
    world.wait(1_000)
    assert world.state.is_paused
    assert world.state.number == 0


def test_an_order_given_to_a_server_that_was_down_is_found_when_it_starts(world, folder):
    fleet(world)
    place_order(folder, Order("x", 0, "ada", "operator", "abort"))
    world.restart()
    assert world.state.round.phase is Phase.ABORTED


def test_a_spool_that_cannot_be_read_does_not_stop_the_federation(world, monkeypatch):
    def denied(_spool):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Spool, "waiting", denied)
    fleet(world)
    assert world.state.number == 1


def test_more_orders_than_are_read_at_a_time_are_all_obeyed(world, folder):
    for k in range(50):
        place_order(folder, new_order("pause" if k % 2 else "resume", who="ada", at_ms=k))
    world.settle()
    for _ in range(3):
        world.wait(1)
    assert list(folder.iterdir()) == []
    assert world.state.is_paused


# The command line.


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", "demo"]) == 0
    return tmp_path / CONFIG_NAME


def test_without_a_server_the_order_waits_and_the_operator_is_told(config, capsys):
    assert main(["pause", "--config", str(config)]) == 75
    assert "not running: the order waits" in capsys.readouterr().err
    assert [placed.order.command for placed in Spool(config.parent / "state" / "orders").waiting()] == ["pause"]


def test_the_answer_of_a_running_server_is_printed(config, capsys):
    with serving(config.parent / "state"):
        assert main(["pause", "--config", str(config), "--wait", "30"]) == 0
        assert main(["abort", "--config", str(config), "--wait", "30"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == ["paused", "no round is open"]
