"""Commands from end to end: real programs, a real broker with the shipped rights, a power cut in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from broker_server.identity.certificates import Role
from fd_protocol import codec
from fd_protocol.messages import Command, CommandState
from fd_protocol.topics import COMMANDS as NAMES
from fd_protocol.topics import MODEL
from fd_runtime.links.link import Arrived
from fd_runtime.links.mqtt_link import MqttLink
from tests.edge_agent.processes import DEVICE, TOPICS, AgentProcess, settings_text
from tests.edge_agent.slots.shop import Shop, make_factory
from tests.support.brokers import AGGREGATOR, make_fleet, needs_mosquitto
from tests.support.patience import PATIENCE_S, wait_until
from tests.support.programs import running

pytestmark = [pytest.mark.system, needs_mosquitto]

EXPIRES = 2_000_000_000
EXECUTING, SUCCESSFUL, FAILED = CommandState.EXECUTING, CommandState.SUCCESSFUL, CommandState.FAILED


class Operator:
    """The server's end of `cmd/+`."""

    def __init__(self, settings):
        self.link = MqttLink(settings)
        self.said: list[Command] = []

    def order(self, name, number=1, **arguments):
        keys = {key.replace("__", "."): text for key, text in arguments.items()}
        command = Command(f"{name}-{number}", name, CommandState.INIT, EXPIRES, keys)
        self.link.publish(TOPICS.command(DEVICE, name), codec.encode(command), retain=True)
        return command

    def hear(self):
        while not self.link.events.empty():
            if isinstance(arrived := self.link.events.get(), Arrived) and arrived.payload:
                command = codec.decode(arrived.payload, Command)
                if command.state is not CommandState.INIT:
                    self.said.append(command)

    def states(self, name, number=1):
        self.hear()
        return [one.state for one in self.said if one.id == f"{name}-{number}"]

    def end(self, name, number=1):
        """Wait until a command has ended, and return it."""
        return wait_until(lambda: self._ended(f"{name}-{number}"))

    def _ended(self, command_id):
        self.hear()
        return next((one for one in self.said if one.id == command_id and one.state.has_ended), None)


@pytest.fixture
def stage(tmp_path):
    """A device, and an operator, with certificates and rights of their own."""
    with ExitStack() as stack:
        fleet = make_fleet(tmp_path)
        stack.enter_context(fleet.broker)
        tls = fleet.identity(DEVICE)
        text = settings_text(fleet.broker.port, broker__host="localhost")
        text += f'\n[broker.tls]\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        text += "\n[commands]\nhealth_window_s = 20\n"
        agent = AgentProcess(tmp_path / "device", 1, settings=text)
        stack.callback(agent.end)
        settings = fleet.settings(AGGREGATOR, TOPICS.device("+", "cmd/+"), role=Role.AGGREGATOR)
        operator = Operator(replace(settings, port=fleet.broker.port, reconnect_min_s=0.05, reconnect_max_s=0.2))
        stack.callback(operator.link.close)
        yield agent, operator, fleet


def command_line(agent, *words):
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *words, "--config", str(agent.config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=agent.folder,
    )


def test_every_command_comes_and_goes_under_the_shipped_rights(stage):
    agent, operator, _ = stage
    agent.start()
    assert command_line(agent, "health", "--gate", "--wait", "60", "--steady", "0.5").returncode == 0
    operator.order("diag")
    done = operator.end("diag")
    assert done.state is SUCCESSFUL
    assert (done.result["runtime"], done.result["connected"], done.result["worker_ready"]) == ("numpy", "yes", "yes")
    operator.order("dry-run")
    assert int(operator.end("dry-run").result["payload_bytes"]) > 100
    before = set(agent.worker_ids())
    operator.order("restart-worker")
    assert operator.end("restart-worker").state is SUCCESSFUL
    assert set(agent.worker_ids()).isdisjoint(before)
    operator.order("log-level", level="debug", for_s="60")
    assert operator.end("log-level").result["level"] == "debug"
    assert json.loads(command_line(agent, "status", "--json").stdout)["commands"]["diag"] == "successful"


def test_a_device_tells_of_its_way_to_another_bundle_under_the_shipped_rights(stage, tmp_path):
    agent, operator, _ = stage
    shop = Shop(make_factory(tmp_path / "factory"), tmp_path / "shop")
    model = ("model.runtime", "onnxruntime", "model.bundle", str(shop.factory.folder), "releases.health_s", "1.0")
    assert command_line(agent, "config", "set", *model).returncode == 0
    agent.start()
    assert command_line(agent, "health", "--gate", "--wait", "60", "--steady", "0.5").returncode == 0
    package = shop.blobs / shop.good().package
    assert command_line(agent, "model", "install", str(package)).returncode == 0

    def told():
        operator.hear()
        return next((one for one in operator.said if one.command == MODEL and one.state.has_ended), None)

    assert wait_until(told).state is SUCCESSFUL
    assert "refused a message" not in agent.log.read_text()


def test_a_setting_that_a_device_is_well_with_is_kept_and_one_that_it_cannot_start_with_is_rolled_back(stage):
    agent, operator, _ = stage
    agent.start()
    operator.order("config", 1, model__threads="2")
    assert operator.end("config", 1).result == {"model.threads": "2"}
    own = agent.config.read_bytes()
    operator.order("config", 2, model__runtime="litert")  # the bundle was not proven on it: the worker refuses
    failed = operator.end("config", 2)
    assert failed.reason == "rolled_back: it does not start (WorkerRefused)"
    assert failed.result == {"model.threads": "2"}
    assert agent.process.poll() is None
    assert agent.config.read_bytes() == own
    operator.order("config", 3, broker__host="evil.example")
    assert operator.end("config", 3).reason == "forbidden: broker.host"
    assert json.loads(command_line(agent, "config", "get", "model", "--json").stdout)["model.threads"] == {
        "value": 2,
        "source": "server",
    }


def test_a_device_that_cannot_reach_its_broker_after_a_change_goes_back(stage):
    agent, operator, fleet = stage
    text = agent.config.read_text()
    agent.config.write_text(text.replace("health_window_s = 20", "health_window_s = 10"))  # the shortest
    agent.start()
    operator.order("diag")
    operator.end("diag")
    with agent.held_worker():
        operator.order("config", model__threads="2")
        wait_until(lambda: EXECUTING in operator.states("config"))
    fleet.broker.stop()
    wait_until(lambda: "rolled back" in agent.log.read_text())
    fleet.broker.start()
    assert operator.end("config").reason.startswith("rolled_back: not connected")


def test_a_device_killed_over_a_command_goes_on_with_it_and_does_nothing_twice(stage):
    agent, operator, _ = stage
    agent.start()
    wait_until(agent.worker_ids)
    with agent.held_worker():  # nothing can end while the worker stands still
        for name in ("dry-run", "restart-worker"):
            operator.order(name)
        wait_until(lambda: EXECUTING in operator.states("dry-run"))
        agent.kill()
    agent.start()
    ends = {name: operator.end(name).state for name in ("dry-run", "restart-worker")}
    assert ends == {"dry-run": SUCCESSFUL, "restart-worker": SUCCESSFUL}
    for name in ("dry-run", "restart-worker"):  # said once more: answered, not done
        operator.order(name)
    log = agent.log.read_text()
    wait_until(lambda: len([one for one in operator.states("dry-run") if one is SUCCESSFUL]) > 1)
    assert agent.log.read_text().count("command dry-run") == log.count("command dry-run")


def test_a_command_that_came_while_the_device_was_off_waits_for_it_at_the_broker(stage):
    agent, operator, _ = stage
    operator.order("diag")
    agent.start()
    assert operator.end("diag").state is SUCCESSFUL


def test_a_command_that_is_past_its_time_is_gone_from_the_broker(stage):
    agent, operator, _ = stage
    command = Command("diag-1", "diag", CommandState.INIT, EXPIRES)
    operator.link.publish(TOPICS.command(DEVICE, "diag"), codec.encode(command), retain=True, expiry_s=1)
    wait_until(lambda: not operator.link.events.empty())
    time.sleep(2.5)
    agent.start()
    operator.order("dry-run")
    operator.end("dry-run")
    assert operator.states("diag") == []


def test_a_log_level_reaches_both_processes_and_their_last_lines_come_with_the_archive(stage):
    agent, operator, _ = stage
    agent.start()
    operator.order("log-level", level="debug")
    operator.end("log-level")
    done = command_line(agent, "diag", "collect", "--out", "diag.tar.gz")
    assert done.returncode == 0, done.stderr
    with tarfile.open(agent.folder / "diag.tar.gz") as archive:
        name = next(one for one in archive.getnames() if one.endswith("log.txt"))
        text = archive.extractfile(name).read().decode()
    assert "--- supervisor" in text
    assert "connected" in text.partition("--- worker")[0]
    assert not (agent.folder / "state" / "log_tail").exists()
    assert agent.process.poll() is None
    assert agent.worker_ids()


def test_a_doctor_sees_a_device_that_is_well_and_tries_the_rights_of_one_that_is_stopped(stage):
    agent, _, _ = stage
    agent.start()
    assert command_line(agent, "health", "--gate", "--wait", "60", "--steady", "0.5").returncode == 0
    lines = {one["check"]: one for one in json.loads(command_line(agent, "doctor", "--json").stdout)}
    assert lines["device"]["found"].startswith("running and well")
    assert lines["broker"]["found"].endswith("its certificate is verified")
    agent.end()
    lines = {one["check"]: one for one in json.loads(command_line(agent, "doctor", "--json").stdout)}
    assert lines["rights"] == {
        "check": "rights",
        "verdict": "ok",
        "found": f"it is let in, and may write {TOPICS.state(DEVICE)}",
        "remedy": "",
        "exit_code": 0,
    }
    assert lines["certificate"]["verdict"] == "ok"


def test_a_device_under_another_name_has_no_rights_and_is_told(stage):
    agent, _, _ = stage
    agent.start()
    wait_until(agent.worker_ids)
    agent.end()
    agent.config.write_text(agent.config.read_text().replace('id = "dev-1"', 'id = "dev-2"'))
    lines = {one["check"]: one for one in json.loads(command_line(agent, "doctor", "--json").stdout)}
    assert lines["certificate"]["verdict"] == "failed"
    assert lines["rights"]["exit_code"] == 77


def test_logs_go_out_in_the_form_that_is_asked_for(stage):
    agent, operator, _ = stage
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--log-format", "json", "--config", str(agent.config)]
    options = {"stderr": subprocess.PIPE, "text": True, "cwd": agent.folder, "env": os.environ}
    with running(command, 2 * PATIENCE_S, **options) as process:
        agent.process = process
        operator.order("restart-worker")
        operator.end("restart-worker")
        process.terminate()
        lines = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
    assert {"at", "level", "logger", "message"} <= lines[0].keys()
    assert any(line["message"] == "connected" for line in lines)


def test_all_names_are_those_that_the_owner_may_allow():
    assert set(NAMES) == {"config", "diag", "dry-run", "log-level", "restart-worker"}
