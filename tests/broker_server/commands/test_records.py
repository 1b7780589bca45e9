"""What an operator looks back at, at the command line."""

import json

import pytest

from broker_server.cli import CONFIG_NAME, main
from fd_protocol.identity import sha256
from fd_runtime.storage.store import Store
from tests.broker_server.world import World, fleet


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", "demo"]) == 0
    (tmp_path / "state").mkdir()
    return tmp_path / CONFIG_NAME


@pytest.fixture
def world(config):
    """Two rounds: in the first all three, in the second one stored and one refused so far."""
    world = World(config.parent / "state" / "server.db")
    a, b, c = fleet(world)
    for device in (a, b, c):
        device.contribute()
    world.wait(10)
    a.contribute(seed=1)
    b.send(b.contribution(temperature=4.0)[0])
    return world


def told(capsys, *arguments):
    """Return what a command prints as JSON."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def failure(capsys, *arguments):
    capsys.readouterr()
    code = main(list(arguments))
    return code, capsys.readouterr().err


def test_rounds_are_listed_the_last_first(world, config, capsys):
    second, first = told(capsys, "rounds", "--config", str(config))
    assert (second["number"], second["phase"], second["heard"]) == (2, "offered", 1)
    assert (first["number"], first["phase"], first["heard"]) == (1, "closed", 3)
    assert first["epoch"] == f"{world.state.epoch:016x}"
    assert first["consensus_sha256"] == world.state.consensus.sha256.hex()
    assert first["metrics"]["voices"] == 3
    assert [one["number"] for one in told(capsys, "rounds", "--limit", "1", "--config", str(config))] == [2]
    assert [one["number"] for one in told(capsys, "rounds", "--before", "2", "--config", str(config))] == [1]
    table = printed(capsys, "rounds", "--config", str(config))
    assert "closed" in table
    assert "3/3" in table


def test_one_round_is_told_with_what_each_device_sent(world, config, capsys):
    shown = told(capsys, "rounds", "show", "2", "--config", str(config))
    assert [(one["device"], one["status"], one["reason"]) for one in shown["hearings"]] == [
        ("a", "stored", ""),
        ("b", "refused", "wrong_temperature"),
    ]
    assert "wrong_temperature" in printed(capsys, "rounds", "show", "2", "--config", str(config))


def test_devices_are_listed_by_name(world, config, capsys):
    listed = told(capsys, "devices", "--config", str(config))
    assert [one["device"] for one in listed] == ["a", "b", "c"]
    assert [(one["online"], one["rounds"], one["refused"]) for one in listed] == [
        (True, 2, 0),
        (True, 1, 1),
        (True, 1, 0),
    ]
    assert [one["device"] for one in told(capsys, "devices", "--limit", "2", "--config", str(config))] == ["a", "b"]
    assert "yes" in printed(capsys, "devices", "--config", str(config))


def test_one_device_is_told_with_what_it_sent_and_its_digests_are_text(world, config, capsys):
    world.device("d", bundle=sha256(b"bundle"))
    assert told(capsys, "devices", "show", "d", "--config", str(config))["bundle"] == sha256(b"bundle").hex()
    shown = told(capsys, "devices", "show", "a", "--config", str(config))
    assert [(one["round"], one["status"]) for one in shown["hearings"]] == [(2, "stored"), (1, "stored")]
    assert shown["hearings"][1]["share"] == pytest.approx(1 / 3)
    assert "stored" in printed(capsys, "devices", "show", "a", "--config", str(config))


def test_options_may_stand_before_and_after_a_nested_command(world, config, capsys):
    before = told(capsys, "rounds", "--config", str(config), "show", "1")
    assert before == told(capsys, "rounds", "show", "1", "--config", str(config))


@pytest.mark.parametrize(
    ("command", "text"), [(("rounds", "show", "9"), "round 9"), (("devices", "show", "z"), "device z")]
)
def test_what_there_is_no_record_of_is_said(world, config, capsys, command, text):
    code, line = failure(capsys, *command, "--config", str(config))
    assert (code, text in line) == (66, True)


@pytest.mark.parametrize("command", ["rounds", "devices"])
def test_a_server_that_has_never_run_has_no_records(config, capsys, command):
    code, line = failure(capsys, command, "--config", str(config))
    assert (code, "state.folder" in line) == (66, True)


def test_a_database_from_before_the_records_has_empty_tables(config, capsys):
    Store.open(config.parent / "state" / "server.db").close()
    assert told(capsys, "rounds", "--config", str(config)) == []
    assert told(capsys, "devices", "--config", str(config)) == []


def test_what_a_device_says_of_itself_is_text_and_no_markup(world, config, capsys):
    world.device("d", agent="[/x]", problem="[red]it[/red]", runtime="[link=file:///etc]x[/link]")
    assert "[red]it[/red]" in printed(capsys, "devices", "--config", str(config))
    shown = printed(capsys, "devices", "show", "d", "--config", str(config))
    assert "[/x]" in shown
    assert "[link=file:///etc]x[/link]" in shown
