"""A command to devices: written down before it is said, said until it is answered, its answers kept once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from broker_server import errands
from broker_server.cli import CONFIG_NAME, main
from broker_server.core.events import DEVICE_COMMAND
from broker_server.core.rate import RateTerms
from broker_server.departures import Registrar
from broker_server.errands import DEAF, MARK, Errands, listed
from broker_server.orders import Spool, new_order
from broker_server.records.chronicle import Chronicle
from fd_protocol import codec
from fd_protocol.messages import Command, CommandState, DeviceState
from fd_runtime.starting import exclusive
from tests.broker_server.builders import FED
from tests.broker_server.world import TASK, TOPICS, World, fleet
from tests.support.patience import PATIENCE_S

INIT, EXECUTING = CommandState.INIT, CommandState.EXECUTING
SUCCESSFUL, FAILED = CommandState.SUCCESSFUL, CommandState.FAILED


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "server.db", spool=Spool(tmp_path / "orders"))
    fleet(world)
    return world


def order(world, command="diag", *, target=None, for_s="3600", **arguments):
    """Give a command; return the order and the server's answer."""
    given = {**(target or {"device": "a"}), "command": command, "for_s": for_s}
    given |= {f"{MARK}{name}": text for name, text in arguments.items()}
    placed = new_order(DEVICE_COMMAND, who="ada", at_ms=world.now_ms, arguments=given)
    return placed, world.obey(placed)


def said(world, device="a", command="diag"):
    return [codec.decode(payload, Command) for payload in world.link.published(TOPICS.command(device, command))]


def answer(world, command, *, device="a", retained=False, **changes):
    """A device says where a command stands."""
    topic = TOPICS.command(device, command.command)
    world.arrive(topic, codec.encode(replace(command, arguments={}, **changes)))
    world.settle()


def kept(world, device=None):
    return listed(world.store, FED, device)


def tag(world, **tags):
    for device, names in tags.items():
        world.store.merge("devices", {"fed": FED, "device": device}, {"tags": json.dumps(names)})


def test_a_command_goes_to_a_device_retained_and_with_an_end(world):
    placed, told = order(world, "config", **{"model.threads": "2"})
    assert (told.is_obeyed, told.outcome) == (True, "config sent to 1 device")
    (command,) = said(world, command="config")
    assert (command.id, command.state, command.arguments) == (placed.id, INIT, {"model.threads": "2"})
    assert command.expires_utc_s == world.now_ms // 1000 + 3600
    assert TOPICS.command("a", "config") in world.link.retained


def test_the_broker_is_told_when_to_forget_it(world, monkeypatch):
    expiries, publish = [], world.link.publish

    def note(topic, payload, *, retain=False, expiry_s=None):
        expiries.append((topic, retain, expiry_s))
        return publish(topic, payload, retain=retain, expiry_s=expiry_s)

    monkeypatch.setattr(world.link, "publish", note)
    order(world)
    world.wait(600)
    world.drop()
    assert [one for one in expiries if "/cmd/" in one[0]] == [
        (TOPICS.command("a", "diag"), True, 3600),
        (TOPICS.command("a", "diag"), True, 3000),
    ]


def test_what_became_of_it_is_kept_step_by_step(world):
    order(world)
    (command,) = said(world)
    answer(world, command, state=EXECUTING, step="look")
    assert (kept(world)[0].state, kept(world)[0].step) == (EXECUTING, "look")
    world.wait(1)
    answer(world, command, state=SUCCESSFUL, result={"phase": "idle"})
    (one,) = kept(world)
    assert (one.state, one.step, one.result, one.changed_ms) == (SUCCESSFUL, "", {"phase": "idle"}, world.now_ms)


def test_an_end_is_an_end(world):
    order(world)
    (command,) = said(world)
    answer(world, command, state=FAILED, reason="unsupported")
    answer(world, command, state=SUCCESSFUL)
    answer(world, command, state=EXECUTING)
    assert (kept(world)[0].state, kept(world)[0].reason) == (FAILED, "unsupported")


def test_nothing_is_said_any_more_to_a_device_that_was_forgotten(world):
    world.device("b").die()
    for device in "ab":
        order(world, target={"device": device})
    assert world.give("forget", device="a").is_obeyed
    before = len(said(world)), len(said(world, "b"))
    world.drop()
    assert (len(said(world)), len(said(world, "b"))) == (before[0], before[1] + 1)
    world.device("a", capabilities=("u8-sqrt",))
    assert (len(said(world)), kept(world, "a")) == (before[0], ())


def test_a_command_of_the_same_moment_is_forgotten_with_the_device(world):
    given = {"device": "a", "command": "diag", "for_s": "3600"}
    world.place(new_order(DEVICE_COMMAND, who="ada", at_ms=world.now_ms, arguments=given))
    assert world.give("forget", device="a").is_obeyed
    assert said(world) == []
    assert not world.give("forget", device="nobody").is_obeyed


def test_what_is_not_forgotten_is_said_again(world):
    order(world)
    assert not world.give("forget", device="nobody").is_obeyed
    assert world.give("tag", device="a", tags="hall-1").is_obeyed
    world.drop()
    assert len(said(world)) == 2


def test_a_tag_reaches_all_that_have_it_and_none_that_was_replaced(world):
    tag(world, a=["hall-1"], b=["hall-1", "spare"], c=["hall-2"])
    world.store.merge("devices", {"fed": FED, "device": "b"}, {"replaced_by": "c"})
    _, told = order(world, target={"tag": "hall-1"})
    assert told.outcome == "diag sent to 1 device"
    world.store.merge("devices", {"fed": FED, "device": "b"}, {"replaced_by": ""})
    _, told = order(world, target={"tag": "hall-1"})
    assert told.outcome == "diag sent to 2 devices"
    assert [len(said(world, device)) for device in "abc"] == [2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"target": {"device": "nobody"}}, "there is no such device"),
        ({"target": {"tag": "nothing"}}, "there is no such device"),
        ({"target": {"device": "a", "tag": "x"}}, "a command is for a device or for a tag"),
        ({"target": {"other": "a"}}, "a command is for a device or for a tag"),
        ({"command": "Two words"}, "the commands that there are"),
        ({"command": "dance"}, "the commands that there are: config, diag"),
        ({"for_s": "0"}, "for_s lies in"),
        ({"for_s": "1e3"}, "for_s lies in"),
        ({"for_s": str(31 * 86_400)}, "for_s lies in"),
    ],
)
def test_what_no_device_could_be_told_is_refused_and_written_down(world, changes, outcome):
    placed, told = order(world, **changes)
    assert (told.is_obeyed, told.outcome.startswith(outcome)) == (False, True)
    assert kept(world) == ()
    assert Chronicle(world.store, FED).commands()[0].id == placed.id


def test_every_command_is_on_record_with_who_gave_it(world):
    placed, _ = order(world, "log-level", level="debug")
    (record,) = Chronicle(world.store, FED).commands()
    assert (record.id, record.who, record.command, record.outcome) == (
        placed.id, "ada", DEVICE_COMMAND, "log-level sent to 1 device",
    )  # fmt: skip
    assert record.arguments == {"device": "a", "command": "log-level", "for_s": "3600", "=level": "debug"}


def test_what_nobody_has_answered_is_said_again_at_every_connection(world):
    order(world)
    world.drop()
    assert len(said(world)) == 2
    answer(world, said(world)[0], state=EXECUTING)
    world.drop()
    assert len(said(world)) == 2


def test_a_device_that_comes_back_is_asked_again(world):
    order(world)
    world.device("b")
    assert len(said(world)) == 1
    world.device("a")
    assert len(said(world)) == 2


def test_a_restarted_server_goes_on_asking(world):
    order(world)
    world.restart()
    assert len(said(world)) == 1
    answer(world, said(world)[0], state=SUCCESSFUL)
    world.restart()
    assert said(world) == []


def test_an_order_that_is_found_again_after_a_crash_is_the_same_command(world, monkeypatch):
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda *_: None)
        placed, _ = order(world)
        answer(world, said(world)[0], state=SUCCESSFUL)
    world.restart()
    (one,) = kept(world)
    assert (one.id, one.state) == (placed.id, SUCCESSFUL)


def test_what_is_past_its_time_is_said_no_more(world):
    order(world, for_s="60")
    world.wait(61)
    world.drop()
    world.device("a")
    assert len(said(world)) == 1
    assert kept(world)[0].standing(world.now_ms / 1000) == "unheard"


def test_a_device_that_answers_after_the_time_is_heard_all_the_same(world):
    order(world, for_s="60")
    (command,) = said(world)
    world.wait(61)
    world.drop()
    answer(world, command, state=FAILED, reason="expired")
    assert kept(world)[0].reason == "expired"


def test_its_own_words_and_those_about_strangers_change_nothing(world):
    order(world)
    (command,) = said(world)
    world.arrive(TOPICS.command("a", "diag"), codec.encode(command))
    answer(world, replace(command, id="another"), state=SUCCESSFUL)
    answer(world, command, device="b", state=SUCCESSFUL)
    answer(world, replace(command, command="config"), state=SUCCESSFUL)
    world.arrive(TOPICS.command("a", "diag"), b"")
    world.settle()
    assert kept(world)[0].state is INIT


def test_what_is_no_command_is_set_aside(world):
    order(world)
    (command,) = said(world)
    world.arrive(TOPICS.command("a", "config"), codec.encode(replace(command, state=EXECUTING)))
    world.arrive(TOPICS.command("a", "diag"), b"\xff")
    world.settle()
    assert world.server.counters["set_aside.invalid"] == 1
    assert world.server.counters["set_aside.malformed"] == 1


def test_a_device_that_floods_is_not_heard(tmp_path):
    world = World(tmp_path / "s.db", spool=Spool(tmp_path / "orders"), admission=RateTerms(5, 1 << 20))
    fleet(world)
    order(world)
    (command,) = said(world)
    for step in range(20):
        answer(world, command, state=EXECUTING, step=f"s{step}")
    assert kept(world)[0].step == "s4"
    assert world.server.counters["dropped.rate_limited"] == 15


def test_a_device_that_is_forgotten_leaves_no_command(world):
    order(world)
    order(world, target={"device": "b"})
    Registrar(world.store, world.settings).strike(world.state, "a")
    assert [one.device for one in kept(world)] == ["b"]


def test_commands_of_a_device_are_no_ones_whose_name_begins_alike(world):
    world.device("a-2")
    order(world, target={"device": "a-2"})
    assert listed(world.store, FED, "a") == ()
    assert errands.forget(world.store, FED, "a") == 0
    assert len(kept(world)) == 1


def test_old_commands_are_pruned_and_those_that_still_wait_are_not(world):
    order(world, for_s="60")
    old = kept(world)[0]
    order(world, target={"device": "b"}, for_s="86400")
    with world.store.transaction():
        Errands(world.store, FED).prune(old.sent_ms + 61_000)
    assert [one.device for one in kept(world)] == ["b"]


# Devices that do not hear commands.


def old(world, name, **birth):
    """A device whose agent is from before there were commands."""
    return world.device(name, capabilities=("u8-sqrt",), **birth)


def test_a_device_from_before_is_told_nothing_and_the_operator_is_told_at_once(world):
    old(world, "d")
    _, told = order(world, target={"device": "d"})
    assert (told.is_obeyed, told.outcome) == (False, f"d {DEAF}")
    assert (said(world, "d"), kept(world)) == ([], ())


def test_of_several_those_that_hear_are_told_and_the_others_have_failed(world):
    old(world, "d")
    old(world, "e", problem="disk_full")
    tag(world, a=["hall"], d=["hall"], e=["hall"])
    _, told = order(world, target={"tag": "hall"})
    assert told.outcome == "diag sent to 1 device; 2 do not hear commands"
    assert {one.device: (one.state, one.reason) for one in kept(world)} == {
        "a": (INIT, ""), "d": (FAILED, DEAF), "e": (FAILED, DEAF),
    }  # fmt: skip
    assert [len(said(world, device)) for device in "ade"] == [1, 0, 0]
    world.drop()
    world.restart()
    assert [len(said(world, device)) for device in "ade"] == [1, 0, 0]
    tag(world, a=[])
    assert order(world, target={"tag": "hall"})[1].outcome == f"each of them {DEAF}"


def test_a_device_that_comes_back_with_an_older_agent_is_not_waited_for(world):
    order(world)
    old(world, "a")
    (one,) = kept(world)
    assert (one.state, one.reason, one.changed_ms) == (FAILED, DEAF, world.now_ms)
    assert len(said(world)) == 1
    world.drop()
    assert len(said(world)) == 1


def test_a_retained_birth_tells_it_as_well(world):
    order(world)
    birth = DeviceState(1, online=True, task=TASK, capabilities=("u8-sqrt",))
    world.arrive(TOPICS.state("a"), codec.encode(birth), retained=True)
    world.settle()
    assert kept(world)[0].reason == DEAF


def test_a_will_does_not_say_what_a_device_hears(world):
    device = world.device("d")
    device.die()
    assert order(world, target={"device": "d"})[1].is_obeyed


def test_a_device_that_was_brought_up_to_date_is_told_again(world):
    old(world, "d")
    world.restart()
    assert not order(world, target={"device": "d"})[1].is_obeyed
    world.device("d")
    assert order(world, target={"device": "d"})[1].is_obeyed
    assert len(said(world, "d")) == 1


def test_whether_it_hears_is_forgotten_with_the_device_and_no_other(world):
    for name in ("d", "d-2"):
        old(world, name)
    errands.forget(world.store, FED, "d")
    assert [Errands(world.store, FED).is_deaf(name) for name in ("d", "d-2")] == [False, True]


# The command line.


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path / "srv"), "--federation", FED]) == 0
    return tmp_path / "srv" / CONFIG_NAME


@pytest.fixture
def serving(config):
    """A server that runs, and a device that answers what it is asked."""
    state = config.parent / "state"
    state.mkdir()
    stop, ready = threading.Event(), threading.Event()

    def serve():
        world = World(state / "server.db", spool=Spool(state / "orders"))
        fleet(world)
        old(world, "old")
        tag(world, a=["hall"], old=["hall"])
        heard = 0
        with exclusive(state / "server.lock"):
            ready.set()
            while not stop.is_set():
                world.server.pump(0.02)
                for command in said(world, "a", "diag")[heard:]:
                    heard += 1
                    answer(world, command, state=SUCCESSFUL, result={"phase": "idle"})
                for command in said(world, "b", "dance"):
                    answer(world, command, device="b", state=FAILED, reason="unsupported")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    assert ready.wait(PATIENCE_S)
    yield
    stop.set()
    server.join(PATIENCE_S)
    assert not server.is_alive()


def test_an_operator_gives_a_command_and_sees_what_came_of_it(config, serving, capsys):
    capsys.readouterr()
    assert main(["devices", "command", "a", "diag", "--wait", "30", "--config", str(config), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["device"], told["state"], told["result"]) == ("a", "successful", {"phase": "idle"})
    assert main(["devices", "command", "b", "dance", "--wait", "30", "--config", str(config)]) == 78
    assert "the commands that there are: config, diag" in capsys.readouterr().err
    assert main(["devices", "command", "nobody", "diag", "--config", str(config)]) == 1
    assert "there is no such device" in capsys.readouterr().out
    assert main(["devices", "command", "c", "diag", "--wait", "0.3", "--config", str(config)]) == 75
    assert main(["devices", "command", "old", "diag", "--wait", "600", "--config", str(config)]) == 1
    assert f"old {DEAF}" in capsys.readouterr().out
    assert main(["devices", "command", "--tag", "hall", "diag", "--wait", "600", "--config", str(config)]) == 1
    assert "diag sent to 1 device; 1 does not hear commands" in capsys.readouterr().out
    capsys.readouterr()
    assert main(["devices", "commands", "--config", str(config), "--json"]) == 0
    assert {one["device"] for one in json.loads(capsys.readouterr().out)} == {"a", "c", "old"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a"], "devices command DEVICE COMMAND"),
        (["a", "config", "model.threads"], "arguments are KEY=VALUE"),
        (["a", "config", *(f"k{n}=1" for n in range(14))], "at most 13 arguments"),
    ],
)
def test_a_command_that_is_none_is_a_usage_error(config, words, complaint, capsys):
    assert main(["devices", "command", *words, "--config", str(config)]) == 64
    assert complaint in capsys.readouterr().err
