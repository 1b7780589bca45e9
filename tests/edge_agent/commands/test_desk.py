"""Commands over the wire: durable before they are acknowledged, told until they are heard, done once."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.care import log_level
from edge_agent.commands import memory
from edge_agent.jobs import Answer, PredictJob
from edge_agent.round.events import WorkFailed
from fd_protocol import codec
from fd_protocol.messages import Command, CommandState, DeviceState, Part
from fd_protocol.topics import COMMANDS
from fd_runtime.links.link import LinkDown, PublishRefused
from tests.edge_agent.commands.bench import Ordered
from tests.edge_agent.processes import settings_text
from tests.edge_agent.test_agent import fill, make_room
from tests.edge_agent.wire import TOPICS

EXECUTING, SUCCESSFUL, FAILED = CommandState.EXECUTING, CommandState.SUCCESSFUL, CommandState.FAILED


@pytest.fixture
def device(tmp_path):
    device = Ordered(tmp_path / "device")
    device.connect()
    return device


def states(device, name):
    return [one.state for one in device.told(name)]


def test_a_command_is_told_at_every_step_and_retained(device):
    done = device.order("diag")
    assert states(device, "diag") == [EXECUTING, SUCCESSFUL]
    assert (done.id, done.result) == ("diag-1", {"phase": "idle", "looks": "1"})
    topic = TOPICS.command("dev-1", "diag")
    assert all(retain for _, where, _, retain in device.wire.published if where == topic)


def test_an_unknown_command_is_unsupported(device):
    assert device.order("dance").reason == "unsupported"


def test_a_command_that_the_owner_does_not_allow_is_forbidden(tmp_path):
    device = Ordered(tmp_path / "strict", settings_text(1) + '\n[commands]\nallow = ["diag"]\n')
    assert device.order("restart-worker").reason == "forbidden"
    assert device.workers == 0
    assert device.order("diag").state is SUCCESSFUL


def test_a_command_that_is_said_again_is_answered_and_not_done_again(device):
    device.order("diag")
    device.confirm()
    again = device.order("diag")
    assert (again.state, device.looks) == (SUCCESSFUL, 1)
    assert len(device.told("diag")) == 3


def test_a_command_that_is_being_done_is_told_again_when_it_is_said_again(device):
    device.worker_comes_back = False
    device.order("restart-worker")
    assert states(device, "restart-worker") == [EXECUTING]
    device.order("restart-worker")
    assert states(device, "restart-worker") == [EXECUTING, EXECUTING]
    assert device.workers == 1


def test_an_end_that_the_broker_has_not_got_is_told_after_a_power_cut(device):
    device.order("diag")
    device.restart()
    device.pump()
    assert (states(device, "diag"), device.looks) == ([SUCCESSFUL], 1)
    device.confirm()
    device.restart()
    device.pump()
    assert device.told("diag") == []


def test_an_end_that_the_broker_refuses_is_not_told_for_ever(device):
    device.order("diag")
    token = device.wire.published[-1][0]
    device.wire.events.put(PublishRefused(token, "Not authorized"))
    device.pump()
    device.restart()
    device.pump()
    assert device.told("diag") == []


def test_a_message_is_acknowledged_once_the_command_is_kept(device):
    arrived = device.hear(TOPICS.command("dev-1", "diag"), device.command("diag"))
    assert arrived in device.wire.acked


def test_on_a_full_disk_commands_wait_unacknowledged_and_no_other(device):
    device.worker_comes_back = False  # what was begun stays open, and so in the memory
    fill(device)
    heard = {}
    for number in range(20):  # a small command still fits a page that is there
        command = device.command("restart-worker", {"x": "y" * 400}, number)
        heard[command.id] = device.hear(TOPICS.command("dev-1", "restart-worker"), command)
    kept = memory.load(device.store, "test")
    acked = {command_id for command_id, arrived in heard.items() if arrived in device.wire.acked}
    assert 0 < len(acked) < 16
    assert all(kept.find(command_id) is not None for command_id in acked)
    make_room(device)
    device.wait(6)
    assert all(arrived in device.wire.acked for arrived in heard.values())
    assert all(memory.load(device.store, "test").find(command_id) is not None for command_id in heard)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("diag", b""),
        ("diag", b"\xff"),
        ("diag", DeviceState(1, online=False)),
        ("config", Command("x", "diag", CommandState.INIT, 2_000_000_600)),
        ("diag", b"x" * 70_000),
    ],
)
def test_what_is_no_command_of_this_topic_is_dropped_and_never_comes_again(device, name, payload):
    arrived = device.hear(TOPICS.command("dev-1", name), payload)
    assert arrived in device.wire.acked
    assert device.told(name) == []


def test_two_commands_of_a_name_are_done_one_after_the_other(device):
    device.worker_comes_back = False
    device.order("restart-worker", number=1)
    device.order("restart-worker", number=2)
    assert device.workers == 1
    device.worker_comes_back = True
    device.worker_up()
    device.wait(1)
    assert [one.id for one in device.told("restart-worker") if one.state is SUCCESSFUL] == [
        "restart-worker-1",
        "restart-worker-2",
    ]
    assert device.workers == 2


def test_a_worker_that_is_restarted_is_ready_again(device):
    done = device.order("restart-worker")
    assert (done.state, device.workers) == (SUCCESSFUL, 1)
    assert float(done.result["ready_after_s"]) >= 0


def test_a_worker_that_does_not_come_back_fails_the_command(device):
    device.worker_comes_back = False
    device.order("restart-worker")
    device.wait(200)
    assert device.last("restart-worker").reason.startswith("error: the worker was not ready")


def test_a_restart_that_a_power_cut_has_done_is_not_done_again(device):
    device.worker_comes_back = False
    device.order("restart-worker")
    device.worker_comes_back = True
    device.restart()
    device.wait(1)
    assert (device.last("restart-worker").state, device.workers) == (SUCCESSFUL, 1)


# Log level.


def test_a_log_level_stands_for_its_time_and_goes_back_by_itself(device, monkeypatch):
    levels = []
    monkeypatch.setattr("edge_agent.care.log_level.set_level", levels.append)
    done = device.order("log-level", {"level": "debug", "for_s": "60"})
    assert done.result == {"level": "debug", "for_s": "60", "until_utc_s": "2000000060"}
    assert (levels, device.signals) == (["debug"], 1)
    device.wait(59)
    assert levels == ["debug"]
    device.wait(1)
    assert (levels, device.signals) == (["debug", "info"], 2)


def test_a_log_level_outlives_a_restart_and_no_more_than_its_time(device, monkeypatch):
    levels = []
    monkeypatch.setattr("edge_agent.care.log_level.set_level", levels.append)
    device.order("log-level", {"level": "error", "for_s": "60"})
    device.wait(20)
    device.restart()
    assert levels == ["error", "error"]
    device.wait(39)
    assert levels == ["error", "error"]
    device.wait(2)
    assert levels == ["error", "error", "info"]


def test_a_clock_set_back_does_not_make_a_log_level_longer(device, monkeypatch):
    levels = []
    monkeypatch.setattr("edge_agent.care.log_level.set_level", levels.append)
    device.order("log-level", {"level": "error", "for_s": "60"})
    device.utc_s -= 86_400
    device.restart()
    device.wait(61)
    assert levels[-1] == "info"


def test_a_log_level_whose_time_passed_while_the_device_was_off_is_over(device, monkeypatch):
    levels = []
    monkeypatch.setattr("edge_agent.care.log_level.set_level", levels.append)
    device.order("log-level", {"level": "error", "for_s": "60"})
    device.utc_s += 3600
    device.restart()
    device.wait(1)
    assert levels[-1] == "info"


def test_on_a_disk_that_is_read_only_a_log_level_goes_back_all_the_same(device, monkeypatch, caplog):
    levels, unlink = [], Path.unlink
    monkeypatch.setattr("edge_agent.care.log_level.set_level", levels.append)
    device.utc_s += 0.6
    device.order("log-level", {"level": "debug", "for_s": "60"}, expires_utc_s=2_000_000_600)

    def read_only(path, **options):
        if path.name == log_level.NAME:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **options)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", read_only)
        device.wait(60)
        device.wait(0)
        assert (levels, device.signals) == (["debug", "info"], 2)
        assert caplog.text.count("Read-only file system") == 1
        assert log_level.load(device.folder).remaining_s(device.utc_s) == 0, "the worker, which looks too, goes back"
        device.order("config", {"log.level": "warning"}, expires_utc_s=2_000_000_600)
        assert levels[2:] == ["warning"]
    device.restart()
    device.wait(1)
    assert "debug" not in levels[1:]
    assert log_level.load(device.folder) is None


@pytest.mark.parametrize(
    "arguments",
    [{}, {"level": "loud"}, {"level": "debug", "for_s": "0"}, {"level": "debug", "for_s": "86401"},
     {"level": "debug", "for_s": "-1"}, {"level": "debug", "for_s": "1e3"}, {"level": "debug", "for_s": "²"}],
)  # fmt: skip
def test_a_log_level_that_makes_no_sense_is_refused(device, arguments):
    assert device.order("log-level", arguments).reason.startswith("invalid: ")


# Dry run.


def test_a_dry_run_says_sizes_and_sends_nothing(device):
    device.hear_offer(1)
    device.confirm()
    before, parts = device.state, len(device.wire.messages(TOPICS.upload("dev-1"), Part))
    done = device.order("dry-run")
    assert done.state is SUCCESSFUL
    assert done.result["payload_bytes"] == str(len(device.model.contribution(device.state.offer, b"")))
    assert (done.result["probes"], done.result["classes"], done.result["codec"]) == ("8", "3", "u8-sqrt")
    assert (done.result["as_offered"], done.result["warmed_up"]) == ("yes", "yes")
    assert device.state == before
    assert len(device.wire.messages(TOPICS.upload("dev-1"), Part)) == parts


def test_a_dry_run_before_any_round_asks_for_the_whole_public_set(device):
    done = device.order("dry-run")
    assert (done.result["probes"], done.result["as_offered"], done.result["warmed_up"]) == ("8", "no", "no")
    assert device.state.phase.value == "idle"


def test_a_dry_run_that_the_worker_dies_over_fails(tmp_path):
    class Dying:
        def handle(self, job):
            return Answer(WorkFailed(job.work, "the worker died (-9): /home/somebody/cat.png"))

    device = Ordered(tmp_path / "device", model=Dying())
    assert device.order("dry-run").reason == "error: the worker died (-9)"


def test_a_dry_run_never_reaches_the_journal(device):
    (before,) = device.store._connection.execute("SELECT count(*) FROM blobs").fetchone()
    device.order("dry-run")
    assert device.store._connection.execute("SELECT count(*) FROM blobs").fetchone() == (before,)
    assert any(isinstance(job, PredictJob) and job.offer.round.epoch == 0 for job in device.model.jobs)


# Anything at all.

HAPPENINGS = ("again", "confirm", "kill", "up", "down", "wait", "offer")
STEPS = st.lists(st.sampled_from([*COMMANDS, *HAPPENINGS]), max_size=25)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_device_killed_anywhere_does_every_command_once_and_tells_its_end(tmp_path_factory, steps):
    device = Ordered(tmp_path_factory.mktemp("any") / "device")
    numbers, asked, ends = 0, {}, {}
    arguments = {"log-level": {"level": "debug"}, "config": {"log.level": "warning"}}
    for name in steps:
        match name:
            case "again":
                for topic, command in asked.values():
                    device.hear(topic, command)
            case "confirm":
                device.confirm()
            case "kill":
                device.restart()
                device.pump()
            case "up":
                device.connect()
            case "down":
                device.wire.events.put(LinkDown("gone"))
                device.pump()
            case "wait":
                device.wait(30)
            case "offer":
                device.hear_offer(numbers := numbers + 1)
            case _:
                numbers += 1
                command = device.command(name, arguments.get(name), numbers)
                asked[command.id] = (TOPICS.command("dev-1", name), command)
                device.hear(*asked[command.id])
        note(device, ends)
    device.restart()
    device.connect()
    for topic, command in asked.values():
        device.hear(topic, command)
    device.wait(1)
    note(device, ends)
    assert ends.keys() == asked.keys()
    assert device.agent._desk.state.open == ()


def note(device, ends):
    """Every end that was told, and that no id has two."""
    for name in COMMANDS:
        for one in device.told(name):
            if one.state.has_ended:
                assert ends.setdefault(one.id, (one.state, one.reason)) == (one.state, one.reason)


def test_ten_thousand_payloads_of_noise_leave_the_device_as_it_was(device):
    """Bytes that are no command, commands with bits turned, commands that are made to hurt."""
    rng = random.Random(7)
    valid = [
        codec.encode(device.command(name, {"level": "debug", "for_s": "60", "log.level": "info"}, number))
        for number, name in enumerate([*COMMANDS, "dance", "diag"])
    ]
    topics = [TOPICS.command("dev-1", name) for name in (*COMMANDS, "dance")]
    topics += ["fd/v1/test/dev/dev-1/cmd", "fd/v1/test/dev/dev-1/cmd/", "fd/v1/test/dev/dev-1/cmd/A b"]
    for _ in range(10_000):
        device.wire.arrive(rng.choice(topics), mutated(rng, rng.choice(valid)))
        device.pump()
    device.wait(200)
    state = device.agent._desk.state
    assert len(state.open) <= 16
    assert len(state.ended) <= 64
    assert len(device.wire.acked) == 10_000
    assert device.order("diag", number=999).state is SUCCESSFUL
    assert device.order("config", {"broker.host": "evil.example"}, number=998).reason == "forbidden: broker.host"


def mutated(rng, data):
    data = bytearray(data)
    match rng.randrange(7):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del data[rng.randrange(len(data)) :]
        case 3:
            data += rng.randbytes(rng.randrange(1, 50))
        case 4:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 5:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 6:
            return codec.encode(hostile(rng))
    return bytes(data)


def hostile(rng):
    """Valid commands with the worst that a valid command may hold."""
    name = rng.choice([*COMMANDS, "dance"])
    keys = ["broker.host", "privacy.epsilon_max", "state.folder", "model.threads", "log.level", "__class__", "x" * 512]
    values = ["", "0", "-1", "[[[[", "\\u0000", "9" * 512, "'a'", "{x = 1}", "nan", "1979-05-27"]
    arguments = {rng.choice(keys): rng.choice(values) for _ in range(rng.randrange(8))}
    state = rng.choice(list(CommandState))
    return Command(
        f"h-{rng.randrange(10**9)}",
        name,
        state,
        rng.choice([1, 2**40 - 1, 2_000_000_100]),
        arguments,
        step=rng.choice(["", "x"]) if state is EXECUTING else "",
        reason="error" if state is FAILED else "",
    )
