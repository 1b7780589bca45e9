"""A real device with a local API: a program of one's own predicts through it, over restarts of its worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edge_agent
from broker_server.brokers.loopback import free_port
from edge_agent import Agent
from edge_agent.api.client import AgentRefusedError, AgentUnavailableError
from fd_protocol.errors import InvalidValueError
from fd_protocol.topics import Topics
from fd_runtime.links.link import LinkSettings
from tests.edge_agent.api_stage import ask, npy
from tests.edge_agent.artifacts import SIZE, TASK, clouds
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.processes import DEVICE, TERMS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until
from tests.support.programs import patient

pytestmark = pytest.mark.system


@pytest.fixture
def device(tmp_path):
    made = []

    def make(more="", port=None):
        port = free_port() if port is None else port
        made.append(AgentProcess(tmp_path / f"device-{len(made)}", port, settings=f"{settings_text(port)}\n{more}"))
        return made[-1]

    yield make
    for one in made:
        one.end()


def socket_of(device):
    return device.folder / "state" / "api.sock"


def wait_for_api(device):
    wait_until(socket_of(device).exists)
    return socket_of(device)


def test_a_program_starts_a_device_predicts_and_the_device_ends_with_it(device):
    made, (samples, _) = device(), clouds(40, seed=2)
    with Agent(made.config) as agent:
        said = agent.predict(samples[0])
        assert said.label in TASK.classes
        assert said.confidence == pytest.approx(max(said.probabilities))
        assert sum(said.probabilities) == pytest.approx(1.0, abs=1e-5)
        many = agent.predict_many(samples.tolist())
        assert len(many) == 40
        assert many[0].probabilities == pytest.approx(said.probabilities)
        status = agent.status()
        assert (status["device"], status["predictions"], status["keeps_samples"]) == (DEVICE, 41, False)
        assert status["personal"]["corrects_by_class_prior"]  # of the private rows that the settings name
        agent.predict(samples[0], is_live=False)
        assert agent.status()["predictions"] == 41
        with pytest.raises(InvalidValueError, match=f"a sample is uint8 \\[{SIZE}\\]"):
            agent.predict(np.zeros(SIZE + 1))
        with pytest.raises(InvalidValueError, match="a value is no uint8"):
            agent.predict(np.full(SIZE, 0.5))
        with pytest.raises(AgentRefusedError, match="keeps no samples"):
            agent.label(said.sample_id, "a")
        assert agent.uncertain() == []
        pids = made.worker_ids()
        assert pids
    wait_until(lambda: not made.worker_ids())


def test_a_device_that_runs_already_is_used_and_left_running(device):
    made = device("[api]").start()
    wait_for_api(made)
    with Agent(made.config) as agent:
        assert agent.status()["device"] == DEVICE
        assert len(made.worker_ids()) == 1
    assert made.process.poll() is None
    assert ask(socket_of(made), "GET", "/healthz")[0] == 200


def test_calls_wait_for_a_worker_that_was_killed(device):
    made, (samples, _) = device("[api]\n[process]\nrestart_min_s = 0.1\nrestart_max_s = 0.5").start(), clouds(5)
    wait_for_api(made)
    with Agent(made.config, start=False) as agent:
        before = agent.predict(samples[0])
        for _ in range(3):
            made.kill_worker()
            assert agent.predict(samples[0]).probabilities == pytest.approx(before.probabilities, abs=1e-5)


def test_where_no_device_runs_and_none_is_to_be_started_it_says_so_at_once(device):
    with pytest.raises(AgentUnavailableError, match="no device answers"), Agent(device().config, start=False):
        pass


def test_a_device_that_cannot_start_is_told(device):
    made = device()
    (made.folder / "bundle" / "manifest.json").unlink()
    with pytest.raises(AgentUnavailableError, match="the device ended with 66"), Agent(made.config):
        pass


def test_the_package_is_cheap_to_import_and_the_api_needs_no_numpy():
    program = """
import sys
import edge_agent
assert not {"numpy", "http.client", "edge_agent.api"} & sys.modules.keys()
from edge_agent import Agent
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    with pytest.raises(AttributeError, match="Nobody"):
        edge_agent.Nobody  # noqa: B018 - asking is what is tested


def test_live_predictions_can_be_followed(device):
    made, (samples, _) = device("[api]").start(), clouds(10)
    wait_for_api(made)
    stop, heard = threading.Event(), []

    def follow():
        with Agent(made.config, start=False) as agent:
            started.set()
            heard.extend(agent.predictions(stop=stop))

    started = threading.Event()
    thread = threading.Thread(target=follow)
    thread.start()
    started.wait(60)
    with Agent(made.config, start=False) as agent:

        def is_heard():
            ids.add(agent.predict(samples[0]).sample_id)
            return ids & {one.sample_id for one in heard}

        ids = set()
        wait_until(is_heard)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_over_tcp_the_token_is_made_and_asked_for_and_nothing_listens_elsewhere(device):
    port = free_port()
    made = device(f"[api]\nport = {port}\nmetrics = true").start()
    token_file = made.folder / "state" / "api.token"
    wait_until(lambda: _accepts(port))
    token = token_file.read_text().strip()
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert ask(port, "GET", "/v1/status", token=None)[0] == 401
    status, told = ask(port, "GET", "/v1/status", token=token)
    assert (status, told["runtime"]) == (200, "numpy")
    assert ask(port, "POST", "/v1/predict", npy(clouds(1)[0]), "application/x-npy", token=token)[0] == 200
    assert b"fedistill_agent_predictions_total 1" in ask(port, "GET", "/metrics", token=token)[1]
    listening = _listening(made.worker_ids())
    assert listening == {f"0100007F:{port:04X}"}


def test_predictions_go_to_a_file_and_to_the_services_own_output(device):
    made, (samples, _) = device('[api]\n[outputs]\nstdout = true\nfile = "predictions.jsonl"'), clouds(6)
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(made.config)]
    with made.log.open("ab") as log:
        made.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=made.folder)
    wait_for_api(made)
    path = made.folder / "predictions.jsonl"

    def are_written(count):
        return path.exists() and path.read_bytes().count(b"\n") == count

    with Agent(made.config, start=False) as agent, patient(made.process):
        said = agent.predict_many(samples)
        lines = [json.loads(made.process.stdout.readline()) for _ in samples]
        wait_until(lambda: are_written(6))
        made.kill_worker()  # not before: what it has answered and not written yet is lost with it
        said.append(agent.predict(samples[0]))
        lines.append(json.loads(made.process.stdout.readline()))
    assert [line["sample_id"] for line in lines] == [one.sample_id for one in said]
    wait_until(lambda: are_written(7))
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    made.process.stdout.close()


@needs_mosquitto
def test_weights_that_a_round_has_taught_are_heard_without_a_restart(device, tmp_path):
    with plain_mosquitto(tmp_path) as broker:
        made = device("[api]", broker.port).start()
        topics = Topics(FEDERATION).server_filters()
        server = ScriptedServer(LinkSettings("server", port=broker.port, subscriptions=topics), made.public)
        samples, _ = clouds(30, seed=4)
        wait_for_api(made)
        with Agent(made.config, start=False) as agent:
            factory = [one.probabilities for one in agent.predict_many(samples)]
            server.offer(1, training=TERMS)
            server.receipt(server.contribution(1))
            warm = [one.probabilities for one in agent.predict_many(samples)]
            assert not np.allclose(factory, warm, atol=1e-3)  # it has warmed up on private rows
            server.consensus(1)
            assert server.report(1).accepted
            taught = [one.probabilities for one in agent.predict_many(samples)]
            assert not np.allclose(warm, taught, atol=1e-3)
            (worker,) = made.worker_ids()
            os.kill(worker, signal.SIGKILL)
            assert np.allclose([one.probabilities for one in agent.predict_many(samples)], taught, atol=1e-5)
        server.link.close()


def test_settings_of_live_inference_that_are_wrong_are_told_with_their_key(device):
    for more, line in (
        ("[api]\nport = 0", "api: port lies in 1..65535"),
        ('[outputs]\nwebhook = "http://example.org/"', "outputs: webhook: predictions go to example.org by https"),
        ("[inference]\nbatch = 0", "inference: batch lies in 1..64"),
        ("[inference.drift]\nwindow = 3", "inference.drift: window lies in 100..10000"),
        ('[home_assistant.broker]\nhost = "192.168.1.9"', "allow_plain = true"),
        ("[api]\nsocet = 'x'", "did you mean 'socket'"),
    ):
        made = device(more).start()
        assert made.process.wait(60) == 78
        assert line in made.log.read_text(), line


def test_a_provider_that_is_not_here_is_told_with_its_key(device):
    made = device()
    made.config.write_text(
        made.config.read_text().replace('runtime = "numpy"', 'runtime = "numpy"\nproviders = ["cuda"]')
    )
    made.start()
    assert made.process.wait(60) == 78
    assert "model: providers are onnxruntime's; numpy runs on the processor" in made.log.read_text()


def test_without_an_api_and_sources_nothing_more_runs_than_before(device):
    made = device().start()
    wait_until(made.worker_ids)
    wait_until((made.folder / "state" / "agent.db").exists)
    wait_until(lambda: "model: clouds on numpy" in made.log.read_text())
    assert not socket_of(made).exists()
    (worker,) = made.worker_ids()
    names = {file.read_text().strip() for file in Path(f"/proc/{worker}/task").glob("*/comm")}
    assert not {"inference", "api"} & names


def _accepts(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _listening(pids):
    """Local addresses, in the kernel's spelling, on which these processes listen for TCP."""
    inodes = {target[8:-1] for pid in pids for target in _descriptors(pid) if target.startswith("socket:[")}
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}


def _descriptors(pid):
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())
