"""Settings that a server changes: only those that it may, only such as a device can start with, and back if unwell."""

from __future__ import annotations

import dataclasses
import errno
import json

import pytest

from edge_agent import remote_config
from edge_agent.agent import RestartWantedError
from edge_agent.configuration import load_changed, load_settings
from edge_agent.lives import live_on
from edge_agent.remote_config import CLOSED_SECTIONS, MAX_STARTS, RemoteConfig, remote_keys
from edge_agent.settings import AgentSettings
from edge_agent.training.settings import TrainingSettings
from edge_agent.worker import WorkerRefusedError
from fd_protocol.messages import CommandState
from fd_runtime.config import ConfigError
from fd_runtime.config_keys import keys_of
from fd_runtime.links.link import LinkDown
from fd_runtime.remote_fields import Remote, remotely
from tests.edge_agent.commands.bench import STEADY_S, WINDOW_S, Ordered
from tests.edge_agent.processes import settings_text

EXECUTING, SUCCESSFUL, FAILED = CommandState.EXECUTING, CommandState.SUCCESSFUL, CommandState.FAILED


@pytest.fixture
def device(tmp_path):
    device = Ordered(tmp_path / "device")
    device.connect()
    return device


def well(device):
    """The device is well for as long as it must be."""
    device.wait(1)
    device.connect()
    device.wait(1)
    device.wait(STEADY_S + 1)


def test_a_setting_that_needs_no_restart_counts_at_once(device):
    own = device.path.read_bytes()
    done = device.order("config", {"log.level": "warning"})
    assert (done.state, done.result) == (SUCCESSFUL, {"log.level": "warning"})
    assert load_settings(device.path).log.level == "warning"
    assert (device.lives, device.workers) == (1, 0)
    assert device.path.read_bytes() == own


def test_a_setting_of_the_worker_restarts_the_worker_and_is_kept_when_it_is_well(device):
    device.order("config", {"model.threads": "2"})
    assert (device.lives, device.workers) == (1, 1)
    assert load_settings(device.path).model.threads == 2
    device.wait(1)
    assert (device.last("config").state, device.last("config").step) == (EXECUTING, "health")
    well(device)
    assert (device.last("config").state, device.last("config").result) == (SUCCESSFUL, {"model.threads": "2"})
    assert device.remote["trial"] == ""


def test_a_setting_of_the_device_begins_another_life(device):
    device.order("config", {"model.runtime": "litert"})
    device.wait(1)
    assert device.lives == 2
    well(device)
    assert device.last("config").state is SUCCESSFUL
    assert load_settings(device.path).model.runtime == "litert"


def test_a_device_that_does_not_come_back_well_goes_back(device):
    device.order("config", {"model.runtime": "litert"})
    device.wait(1)  # another life, which is never connected
    device.wait(WINDOW_S + 1)
    device.wait(1)
    assert device.last("config").reason == "rolled_back: not connected"
    assert load_settings(device.path).model.runtime == "numpy"
    assert device.lives == 3


def test_a_worker_that_does_not_stay_is_not_well(device):
    device.order("config", {"model.threads": "2"})
    device.connect()
    for _ in range(WINDOW_S // 5 + 2):
        device.end_worker()
        device.wait(5)
    device.connect()
    assert device.last("config").reason.startswith("rolled_back: ")
    assert load_settings(device.path).model.threads == 1


def test_a_connection_that_was_good_for_a_moment_is_not_enough(device):
    device.order("config", {"model.threads": "2"})
    device.connect()
    device.wait(STEADY_S - 2)
    device.wire.events.put(LinkDown("gone"))
    device.wait(STEADY_S)
    assert device.last("config").state is EXECUTING
    well(device)
    assert device.last("config").state is SUCCESSFUL


@pytest.mark.parametrize("at", ["asked", "tried", "kept", "rolled back"])
def test_a_power_cut_at_any_point_ends_in_one_of_the_two(device, at):
    device.order("config", {"model.runtime": "litert"})
    if at == "tried":
        device.wait(1)
    if at == "kept":
        well(device)
    if at == "rolled back":
        device.wait(WINDOW_S + 1)
    device.restart()
    if at == "rolled back":
        device.wait(1)
        assert device.last("config").reason.startswith("rolled_back: ")
    else:
        well(device)
        assert device.last("config").state is SUCCESSFUL


@pytest.fixture
def room(monkeypatch):
    """The disk takes `room[0]` more writes of this file; None: as many as there are."""
    room, write = [None], remote_config.write_atomically

    def bounded(*arguments, **options):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        if room[0] is not None:
            room[0] -= 1
        write(*arguments, **options)

    monkeypatch.setattr(remote_config, "write_atomically", bounded)
    return room


def test_a_full_disk_puts_a_roll_back_off_and_does_not_end_it(device, room, caplog):
    device.order("config", {"model.runtime": "litert"})
    device.wait(1)  # another life, which is never connected
    room[0] = 0
    device.wait(WINDOW_S + 1)
    device.wait(1)
    assert (device.last("config").state, load_settings(device.path).model.runtime) == (EXECUTING, "litert")
    assert caplog.text.count("No space left on device") == 1  # and not at every look
    room[0] = None
    device.wait(1)
    device.wait(1)
    assert device.last("config").reason == "rolled_back: not connected"
    assert (load_settings(device.path).model.runtime, device.lives) == ("numpy", 3)


def test_a_full_disk_puts_it_off_that_values_are_kept(device, room):
    device.order("config", {"model.threads": "2"})
    room[0] = 0
    well(device)
    assert device.last("config").state is EXECUTING
    room[0] = None
    device.wait(1)
    assert device.last("config").state is SUCCESSFUL
    assert (device.remote["trial"], device.remote["values"]) == ("", {"model.threads": "2"})


def test_a_decision_that_the_disk_took_before_it_failed_stands(device, monkeypatch):
    device.order("config", {"log.level": "warning"}, number=1)
    device.order("config", {"model.runtime": "litert"}, number=2)
    device.wait(1)  # another life, which is never connected
    write, failures = remote_config.write_atomically, [OSError(errno.EIO, "the folder is not synchronised")]

    def fails_late(*arguments, **options):
        write(*arguments, **options)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(remote_config, "write_atomically", fails_late)
    device.wait(WINDOW_S + 1)
    device.wait(1)
    assert device.last("config").reason == "rolled_back: not connected"
    assert (device.remote["values"], device.remote["settled"]) == ({"log.level": "warning"}, "config-2")


@pytest.mark.parametrize("writes", [0, 1])
def test_where_no_restart_is_needed_a_full_disk_leaves_nothing_on_trial(device, room, writes):
    room[0] = writes
    done = device.order("config", {"log.level": "warning"})
    assert device.remote.get("trial", "") == ""
    expected = (SUCCESSFUL, "warning") if writes else (FAILED, "info")
    assert (done.state, load_settings(device.path).log.level) == expected


def test_values_are_taken_back_one_by_one(device):
    device.order("config", {"log.level": "warning", "log.format": "text"}, number=1)
    assert device.last("config").reason == "forbidden: log.format"
    device.order("config", {"log.level": "warning"}, number=2)
    done = device.order("config", {"log.level": ""}, number=3)
    assert (done.state, done.result) == (SUCCESSFUL, {})
    assert load_settings(device.path).log.level == "info"


def test_what_counts_already_changes_nothing(device):
    device.order("config", {"model.threads": "2"}, number=1)
    well(device)
    assert device.order("config", {"model.threads": "2"}, number=2).state is SUCCESSFUL
    assert device.workers == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "invalid: no keys"),
        ({"model.threads": "many"}, "invalid: model.threads: 'many' is not a TOML value"),
        ({"model.threads": "65"}, "invalid: model: threads lie in 1..64"),
        ({"model.runtime": "torch"}, "invalid: model.runtime: expected one of"),
        ({"log.level": "loud"}, "invalid: log.level: expected one of"),
        ({"model.threds": "2"}, "forbidden: model.threds"),
        ({"model": "2"}, "forbidden: model"),
        ({"model.bundle": "/elsewhere"}, "forbidden: model.bundle"),
    ],
)
def test_what_the_device_could_not_start_with_changes_nothing(device, arguments, reason):
    done = device.order("config", arguments)
    assert done.reason.startswith(reason)
    assert (device.remote, device.lives, device.workers) == ({}, 1, 0)


# What is never the server's.


def test_no_key_of_a_closed_section_is_the_servers_to_change(device):
    keys = [key.name for key in keys_of(AgentSettings) if key.name.partition(".")[0] in CLOSED_SECTIONS]
    assert {"broker.host", "device.id", "state.folder", "data.private", "commands.allow"} <= set(keys)
    for number, key in enumerate(keys):
        assert device.order("config", {key: "1"}, number=number).reason == f"forbidden: {key}"


def test_privacy_and_sources_are_closed_before_they_exist():
    assert {"privacy", "sources", "store", "data", "broker", "device", "state", "commands", "api"} <= CLOSED_SECTIONS


def test_a_mark_does_not_open_a_closed_section():
    @dataclasses.dataclass(frozen=True)
    class Privacy:
        epsilon_max: float = remotely(1.0, restart="worker")

    @dataclasses.dataclass(frozen=True)
    class Open:
        budget_s: int = remotely(1, restart="worker")
        other: int = 2

    @dataclasses.dataclass(frozen=True)
    class Settings:
        privacy: Privacy = Privacy()
        training: Open = Open()

    Settings.__annotations__ = {"privacy": Privacy, "training": Open}
    Privacy.__annotations__, Open.__annotations__ = {"epsilon_max": float}, {"budget_s": int, "other": int}
    assert remote_keys(Settings) == {"training.budget_s": Remote("worker")}


def test_a_file_that_somebody_has_tampered_with_opens_nothing(device):
    device.order("config", {"log.level": "warning"})
    told = device.remote
    told["values"]["broker.host"] = "evil.example"
    (device.folder / remote_config.NAME).write_bytes(
        (json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    )
    settings = load_settings(device.path)
    assert (settings.broker.host, settings.log.level) == ("127.0.0.1", "warning")


def test_a_damaged_file_or_values_of_another_version_do_not_keep_a_device_from_starting(device):
    remote_config.save(device.folder, RemoteConfig({"model.threads": "1000"}))
    assert load_settings(device.path).model.threads == 1
    (device.folder / remote_config.NAME).write_bytes(b"{")
    assert load_settings(device.path).model.threads == 1


def test_the_environment_wins_over_the_server(device):
    device.order("config", {"log.level": "warning"})
    assert load_settings(device.path, {"FEDISTILL__LOG__LEVEL": "error"}).log.level == "error"


def test_changed_values_are_tried_against_the_owners_file(device):
    assert load_changed(device.path, {"model.threads": "3"}).model.threads == 3
    with pytest.raises(ConfigError):
        load_changed(device.path, {"model.threads": "0"})


# Budgets: the stricter counts.


OWN = TrainingSettings(
    memory_mb=64.0, max_c=70.0, resume_below_c=5.0, battery_min_percent=40.0, cpu_share=0.5, window="22:00-06:00",
    checkpoint_s=30.0, flash_mb_per_day=100.0, data_mb_per_month=50.0,
)  # fmt: skip
STRICTER = {
    "memory_mb": ["32", "64"], "max_c": ["60", "70.0"], "resume_below_c": ["5", "10"],
    "battery_min_percent": ["40", "100"], "cpu_share": ["0.25", "0.5"],
    "window": ["23:00-05:00", "22:00-06:00", "22:00-23:00", "00:00-06:00"], "checkpoint_s": ["30", "600"],
    "flash_mb_per_day": ["50", "100"], "data_mb_per_month": ["10", "50"],
}  # fmt: skip
LOOSER = {
    "memory_mb": ["65", "0"], "max_c": ["71", "0"], "resume_below_c": ["4", "0"], "battery_min_percent": ["39", "0"],
    "cpu_share": ["0.51", "1"], "window": ["22:00-06:01", "21:59-06:00", "06:00-22:00"], "checkpoint_s": ["29"],
    "flash_mb_per_day": ["101", "0"], "data_mb_per_month": ["51", "0"],
}  # fmt: skip


@pytest.fixture
def budgeted(device):
    """The owner has said every budget."""
    told = "\n".join(f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(OWN).items())
    device.path.write_text(f"{device.path.read_text()}\n[training]\n{told}\n")
    return device


def _cases(table):
    return [(key, text) for key, texts in table.items() for text in texts]


def test_every_budget_is_the_servers_to_tighten_and_none_to_change_as_it_likes():
    keys = {key: remote for key, remote in remote_keys(AgentSettings).items() if key.startswith("training.")}
    assert keys.keys() == {f"training.{one.name}" for one in dataclasses.fields(TrainingSettings)}
    assert all(remote.is_within is not None for remote in keys.values())
    assert STRICTER.keys() == LOOSER.keys() == {key.partition(".")[2] for key in keys}


@pytest.mark.parametrize(("key", "text"), _cases(STRICTER))
def test_a_server_may_ask_for_less_than_the_owner_grants(budgeted, key, text):
    assert budgeted.order("config", {f"training.{key}": text}).state is EXECUTING
    assert str(getattr(load_settings(budgeted.path).training, key)) in (text, f"{text}.0")


@pytest.mark.parametrize(("key", "text"), _cases(LOOSER))
def test_a_server_may_not_ask_for_more(budgeted, key, text):
    reason = f"forbidden: training.{key}: the owner allows no more than {getattr(OWN, key)}"
    assert budgeted.order("config", {f"training.{key}": text}).reason == reason
    assert (budgeted.remote, budgeted.lives, budgeted.workers) == ({}, 1, 0)
    remote_config.save(budgeted.folder, RemoteConfig({f"training.{key}": text}))  # tampered with
    assert load_settings(budgeted.path).training == OWN


def test_where_the_owner_sets_no_bound_the_server_may(device):
    patch = {"training.data_mb_per_month": "100", "training.window": "01:00-02:00", "training.cpu_share": "0.01"}
    assert device.order("config", patch).state is EXECUTING
    assert load_settings(device.path).training.data_mb_per_month == 100


def test_an_owner_who_tightens_a_budget_later_is_obeyed_and_the_servers_other_values_stay(device):
    remote_config.save(device.folder, RemoteConfig({"training.max_c": "75", "log.level": "warning"}))
    assert load_settings(device.path).training.max_c == 75
    device.path.write_text(f"{device.path.read_text()}\n[training]\nmax_c = 60.0\n")
    settings = load_settings(device.path)
    assert (settings.training.max_c, settings.log.level) == (60.0, "warning")
    assert device.order("config", {"log.level": "error"}).state is SUCCESSFUL  # what does not count is in nobody's way
    assert device.order("config", {"training.max_c": ""}, number=2).state is EXECUTING


@pytest.mark.parametrize("text", ["late", "25:00-26:00", "22:00-22:00"])
def test_a_window_that_is_none_is_invalid(budgeted, text):
    reason = budgeted.order("config", {"training.window": text}).reason
    assert reason.startswith(f"invalid: training: window '{text}'")


# Lives: whatever a trial does to the process.


@pytest.fixture
def place(tmp_path):
    (tmp_path / "state").mkdir()
    path = tmp_path / "agent.toml"
    path.write_text(settings_text(1))
    remote_config.save(
        tmp_path / "state", remote_config.begin(RemoteConfig({"log.level": "error"}), "c-1", {"model.threads": "2"})
    )
    return path


def remote_of(place):
    return remote_config.load(place.parent / "state")


def test_a_life_that_cannot_start_on_trial_goes_back_and_begins_again(place):
    lives = []

    def live():
        lives.append(load_settings(place).model.threads)
        if lives[-1] == 2:
            raise WorkerRefusedError(78)

    live_on(place, live)
    assert lives == [2, 1]
    found = remote_of(place)
    assert (found.values, found.trial, found.settled) == ({"log.level": "error"}, "", "c-1")
    assert found.outcome == "it does not start (WorkerRefused)"


def test_a_life_that_cannot_start_with_the_owners_settings_ends_the_program(place):
    remote_config.save(place.parent / "state", RemoteConfig({"log.level": "error"}))

    def live():
        raise WorkerRefusedError(78)

    with pytest.raises(WorkerRefusedError):
        live_on(place, live)


def test_a_supervisor_that_is_killed_over_a_trial_goes_back_after_a_few_starts(place):
    def live():
        raise SystemExit(9)  # killed, as systemd sees it

    seen = []
    for _ in range(MAX_STARTS + 1):
        with pytest.raises(SystemExit):
            live_on(place, live)
        seen.append(remote_of(place).values)
    assert seen == [{"model.threads": "2"}] * MAX_STARTS + [{"log.level": "error"}]


def test_a_life_that_wants_another_gets_it(place):
    lives = []

    def live():
        lives.append(1)
        if len(lives) < 3:
            raise RestartWantedError("settings have changed")

    live_on(place, live)
    assert len(lives) == 3
