"""The program as its owner meets it: how it starts, refuses to start, ends, and bears a bad day."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from broker_server.identity.certificates import Role
from edge_agent.round.participant import Phase
from fd_runtime.links.link import LinkSettings
from fd_runtime.starting import exclusive
from tests.edge_agent.artifacts import TASK, write_bundle
from tests.edge_agent.processes import DEVICE, LONG, TERMS, TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import AGGREGATOR, make_fleet, needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

pytestmark = pytest.mark.system


def command(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What keeps it from starting: one line with file and key, and a code of sysexits.h.

REFUSALS = {
    "an unknown key": ({"model__runtme": "numpy"}, "model.runtme: unknown key, did you mean 'runtime'?", 78),
    "a wrong type": ({"broker__port": "many"}, "broker.port: expected an integer, found text 'many'", 78),
    "an unknown runtime": ({"model__runtime": "torch"}, "model.runtime: expected one of", 78),
    "a device that cannot be named": ({"device__id": "Dev 1"}, "device", 78),
    "a broker elsewhere without TLS": ({"broker__host": "broker.example"}, "broker: a broker on broker.example", 78),
    "no bundle": ({"model__bundle": "nowhere"}, "model.bundle: no such file: ", 66),
    "no public set": ({"model__public_set": "nowhere"}, "model.public_set: no such file: ", 66),
    "no private rows": ({"data__private": "nowhere.npz"}, "data.private: no such file: ", 66),
    "private rows that are none": ({"data__private": "agent.toml"}, "data.private: ", 65),
    "a runtime not proven": ({"model__runtime": "litert"}, "model.runtime: bundle clouds was proven on numpy", 78),
    "a state folder that is a file": ({"state__folder": "private.npz"}, "state.folder: ", 73),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_start_that_cannot_be_is_refused_in_one_line(tmp_path, name):
    changes, expected, exit_code = REFUSALS[name]
    AgentProcess(tmp_path, 1, settings=settings_text(1, **changes))
    done = command("run", "--config", "agent.toml", folder=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("edge-agent: ")]
    assert len(lines) == 1
    assert lines[0].startswith("edge-agent: agent.toml: ")
    assert expected in lines[0]
    assert done.returncode == exit_code


def test_without_a_settings_file_it_says_so(tmp_path):
    done = command("run", "--config", "nowhere.toml", folder=tmp_path)
    assert (done.returncode, done.stderr) == (78, "edge-agent: nowhere.toml: no such file\n")


def test_a_changed_bundle_is_refused(tmp_path):
    AgentProcess(tmp_path, 1)
    (tmp_path / "bundle" / "theta.bin").write_bytes(b"x")
    done = command("run", "--config", "agent.toml", folder=tmp_path)
    assert done.returncode == 65
    assert "agent.toml: model.bundle: bundle/theta.bin: expected sha256" in done.stderr


def test_a_public_set_of_another_task_is_refused(tmp_path):
    AgentProcess(tmp_path, 1)
    write_bundle(tmp_path / "bundle", task=replace(TASK, classes=("x", "y", "z")))
    done = command("run", "--config", "agent.toml", folder=tmp_path)
    assert (done.returncode, "model.public_set" in done.stderr) == (78, True)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.zeros((5, 7), np.uint8), "y": np.zeros(5, int)}, "expected x [n, 6] and y [n], found x [5, 7]"),
        ({"x": np.zeros((5, 6), np.uint8), "y": np.full(5, 3)}, "y must be integers from 0 to 2"),
        ({"x": np.zeros((5, 6), np.uint8), "y": np.zeros(5)}, "y must be integers from 0 to 2"),
        ({"x": np.zeros((5, 6), np.uint8)}, "not a readable npz file of arrays x and y"),
        ({"x": np.array([None] * 5), "y": np.zeros(5, int)}, "not a readable npz file of arrays x and y"),
    ],
)
def test_private_rows_that_do_not_fit_the_task_are_refused(tmp_path, arrays, complaint):
    AgentProcess(tmp_path, 1)
    np.savez(tmp_path / "private.npz", **arrays)
    done = command("run", "--config", "agent.toml", folder=tmp_path)
    assert (done.returncode, complaint in done.stderr) == (65, True)


def test_two_agents_never_share_a_state_folder(tmp_path):
    AgentProcess(tmp_path, 1)
    (tmp_path / "state").mkdir()
    with exclusive(tmp_path / "state" / "agent.lock"):
        done = command("run", "--config", "agent.toml", folder=tmp_path)
    assert done.returncode == 75
    assert "state.folder: state is in use by another process" in done.stderr


def test_a_misspelled_command_is_a_usage_error(tmp_path):
    assert command("rnu", folder=tmp_path).returncode == 64


def test_it_tells_its_version(tmp_path):
    assert command("--version", folder=tmp_path).stdout.startswith("edge-agent 0.")


# How it runs and ends.


@pytest.fixture
def broker(tmp_path):
    broker = plain_mosquitto(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def agent(tmp_path, broker):
    agent = AgentProcess(tmp_path / "device", broker.port)
    yield agent
    agent.end()


@pytest.fixture
def server(agent, broker):
    settings = LinkSettings(
        "agg", port=broker.port, subscriptions=TOPICS.server_filters(), reconnect_min_s=0.05, reconnect_max_s=0.2
    )
    server = ScriptedServer(settings, agent.public)
    yield server
    server.link.close()


@needs_mosquitto
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_the_middle_of_a_training_it_says_goodbye_and_leaves_nothing_behind(broker, agent, server, number):
    broker.start()
    agent.start()
    server.offer(training=replace(TERMS, epochs=LONG))
    server.receipt(server.contribution())
    with agent.held_worker():
        server.consensus()
        agent.wait_for(Phase.TRAINING)
    agent.process.send_signal(number)
    assert agent.process.wait(10) == 0
    assert agent.worker_ids() == []
    server.wait(lambda: not server.states[-1].online)
    assert server.states[-1].boot == 1
    assert "Traceback" not in agent.log.read_text()


def test_stopped_where_no_broker_answers_it_ends_as_well(agent):
    agent.start()
    wait_until(agent.worker_ids)
    agent.process.terminate()
    assert agent.process.wait(10) == 0
    assert agent.worker_ids() == []


@needs_mosquitto
def test_a_broker_that_comes_later_is_found(broker, agent, server):
    agent.start()
    wait_until(lambda: "not connected" in agent.log.read_text())
    broker.start()
    server.wait(lambda: server.states)
    server.offer()
    server.receipt(server.contribution())
    server.consensus()
    assert server.report().accepted


@needs_mosquitto
def test_status_tells_where_a_running_device_stands(broker, agent, server):
    broker.start()
    agent.start()
    server.offer()
    server.receipt(server.contribution())
    agent.wait_for(Phase.AWAITING)
    lines = dict(
        line.split(maxsplit=1)
        for line in command("status", "--config", "agent.toml", folder=agent.folder).stdout.splitlines()
    )
    assert (lines["device"], lines["starts"], lines["phase"]) == ("dev-1", "1", "awaiting")
    assert lines["round"] == "test/0007/1"


def test_status_of_a_device_that_never_ran_says_so(tmp_path):
    AgentProcess(tmp_path, 1)
    done = command("status", "--config", "agent.toml", folder=tmp_path)
    assert (done.returncode, "state.folder: no such file: state/agent.db" in done.stderr) == (66, True)


@needs_mosquitto
def test_private_rows_that_change_make_a_new_competence_map(broker, agent, server):
    broker.start()
    for number in (1, 2):
        agent.start()
        server.offer(number, competence=True)
        server.receipt(server.contribution(number))
        agent.end()
        np.savez(agent.folder / "private.npz", x=np.zeros((30, 6), np.uint8), y=np.zeros(30, int))
    maps = {part.payload_sha256 for part in server.parts if part.kind.value == "competence"}
    assert len(maps) == 2


@needs_mosquitto
def test_a_device_takes_part_under_the_access_rules_that_we_ship(tmp_path):
    fleet = make_fleet(tmp_path)
    fleet.broker.start()
    tls = fleet.identity(DEVICE)
    text = settings_text(fleet.broker.port, broker__host="localhost")
    text += f'\n[broker.tls]\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
    agent = AgentProcess(tmp_path / "device", 1, settings=text)
    settings = fleet.settings(AGGREGATOR, *TOPICS.server_filters(), role=Role.AGGREGATOR)
    server = ScriptedServer(replace(settings, port=fleet.broker.port), agent.public)
    try:
        agent.start()
        server.offer()
        server.receipt(server.contribution())
        server.consensus()
        assert server.report().accepted
    finally:
        agent.end()
        server.link.close()
        fleet.broker.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


@needs_mosquitto
def test_a_full_disk_stops_the_round_and_not_the_device(broker, agent, server, small_disk):
    broker.start()
    agent.config.write_text(settings_text(broker.port, state__folder=str(small_disk)))
    agent.start()
    server.wait(lambda: server.states)
    fill(small_disk)
    server.offer()
    server.wait(lambda: server.states[-1].problem == "disk_full")
    assert agent.process.poll() is None
    (small_disk / "filler").unlink()
    server.receipt(server.contribution())
    server.wait(lambda: server.states[-1].problem == "")
    server.consensus()
    assert server.report().accepted
