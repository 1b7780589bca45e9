"""From the workstation's signature to a device that runs it, end to end: publish, release, halt, and the way back.

The real programs, a real Mosquitto, a real HTTP server on loopback; the operator has the command line alone.
"""

import io
import json
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress

import pytest

from broker_server.cli import CONFIG_NAME, main
from edge_agent.slots.machine import Phase
from edge_agent.slots.shelf import Shelf
from fd_runtime.artifacts import load_bundle
from fd_runtime.releases import release
from model_export.cli import main as model_export
from tests.edge_agent.artifacts import write_public_set
from tests.edge_agent.processes import DEVICE, FEDERATION, AgentProcess, settings_text
from tests.edge_agent.slots.shop import Shop, learnt, make_factory
from tests.support.brokers import free_port, needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until
from tests.support.trust import Trust

pytestmark = [pytest.mark.system, needs_mosquitto]

COMMAND = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]
ROUND_OF_ONE = {
    'when = "pause" ': 'when = "demand"',
    "quorum = 2": "quorum = 1",
    "minimum_online = 2": "minimum_online = 1",
}
"""A round with the one device that is here, when somebody asks for it."""


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    return make_factory(tmp_path_factory.mktemp("factory") / "bundle")


@pytest.fixture
def broker(tmp_path):
    with plain_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def trust(tmp_path, factory):
    return Trust(tmp_path / "owner", factory.manifest.family, time.time())


@pytest.fixture
def server(tmp_path, broker, factory, port, trust):
    """Settings of a server that runs, and serves packages on `port`."""
    folder = tmp_path / "server"
    assert main(["init", str(folder), "--federation", FEDERATION, "--trust", "none"]) == 0
    shutil.copytree(factory.folder, folder / "bundle")
    write_public_set(folder / "public_set")
    config = folder / CONFIG_NAME
    text = config.read_text().replace("port = 8883", f"port = {broker.port}")
    for usual, here in ROUND_OF_ONE.items():
        assert usual in text
        text = text.replace(usual, here)
    before, after = text.split("[packages]")
    after = after.replace("enabled = false", "enabled = true", 1).replace("port = 8443", f"port = {port}", 1)
    config.write_text(f"{before}[packages]{after}")
    (folder / "state").mkdir()
    shutil.copy(trust.keys / "online", folder / "state" / "signing.key")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "run", "--config", str(config)], stderr=log)
    wait_until((folder / "state" / "server.db").exists)
    yield config
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()


@pytest.fixture
def device(tmp_path, broker, factory, port, trust):
    text = settings_text(broker.port, model__runtime="onnxruntime")
    releases = f'\n[releases]\nurl = "http://127.0.0.1:{port}"\nroot = "root.json"\nhealth_s = 1.0\n'
    agent = AgentProcess(tmp_path / "device", broker.port, settings=text + releases)
    (agent.folder / "root.json").write_bytes(trust.root)
    shutil.rmtree(agent.folder / "bundle")
    shutil.copytree(factory.folder, agent.folder / "bundle")
    yield agent
    agent.end()


def operator(config, *arguments, waits=True):
    """What the command line says; in this process, for a look that is repeated takes a second to start elsewhere."""
    said, trouble = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(trouble):
        status = main(words(config, arguments, waits))
    assert status == 0, trouble.getvalue() + said.getvalue()
    return said.getvalue()


def operator_elsewhere(config, *arguments, waits=True):
    """What it says where it is a program, as it is for an operator."""
    command = [*COMMAND, *words(config, arguments, waits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def words(config, arguments, waits):
    return [*map(str, arguments), "--config", str(config), *(["--wait", "60"] if waits else [])]


def sign(trust, bundle, parent=None):
    """What `model-export publish` does on the workstation."""
    workstation = ["publish", bundle.folder, "--to", trust.signed, "--key", trust.keys / "targets"]
    assert model_export([*map(str, workstation), *(["--parent", str(parent.folder)] if parent else [])]) == 0


def published(server):
    """What stands for the family, as a program reads it."""
    (one,) = json.loads(operator(server, "releases", "--json", waits=False))["published"]
    return one


def how_far(server):
    """How far the rollout is, as the operator reads it."""
    return published(server)["rollout"]


def slots(device):
    return Shelf(device.folder / "state" / "slots").load()


def runs(device, bundle):
    return runs_digest(device, bundle.digest.hex())


def runs_digest(device, digest):
    return lambda: slots(device).active == digest and slots(device).phase is Phase.IDLE


def students(server):
    """Releases of the server's own student, the last one first."""
    return json.loads(operator(server, "releases", "--json", waits=False))["releases"]


def test_what_the_workstation_signs_comes_to_a_device_and_a_command_takes_it_back(
    server, device, factory, trust, tmp_path
):
    second = release(factory, learnt(factory, 10), tmp_path / "second", version="2")
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    sign(trust, second, factory)
    assert "mlp-s 2" in operator_elsewhere(server, "publish", trust.signed, waits=False)
    started = operator_elsewhere(server, "release", "start", "mlp-s", "2")
    assert "2 is what devices of family mlp-s run from now on" in started
    wait_until(runs(device, second))
    assert slots(device).succeeded
    wait_until(lambda: "1 run it" in how_far(server))
    assert "the first bundle is current" in operator(server, "withdraw")
    wait_until(lambda: slots(device).active == "" and slots(device).phase is Phase.IDLE)


def test_a_device_that_was_off_hears_of_it_when_it_comes(server, device, factory, trust, tmp_path):
    second = release(factory, learnt(factory, 9), tmp_path / "second", version="2")
    sign(trust, second)  # whole: the device needs no parent
    operator(server, "publish", trust.signed, waits=False)
    operator(server, "release", "start", "mlp-s", "2")
    device.start()
    wait_until(runs(device, second))


def test_a_device_that_is_not_among_the_first_waits_and_a_tag_makes_it_one(server, device, factory, trust, tmp_path):
    second = release(factory, learnt(factory, 8), tmp_path / "second", version="2")
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    sign(trust, second)
    operator(server, "publish", trust.signed, waits=False)
    assert "tag canary" in operator(server, "release", "start", "mlp-s", "2", "--tag", "canary")
    operator(server, "release", "halt", "mlp-s")
    wait_until(lambda: operator(server, "devices", "tag", DEVICE, "canary") is not None)
    assert slots(device).active == ""
    assert slots(device).phase is Phase.IDLE  # it is halted: nobody begins
    operator(server, "release", "resume", "mlp-s")
    wait_until(runs(device, second))


def test_a_bundle_that_devices_refuse_halts_its_rollout(server, device, factory, trust, tmp_path):
    bad = Shop(factory, tmp_path / "shop").unlike_its_golden_vectors
    offered = bad("2")
    folder = tmp_path / "shop" / "bundles" / "2-swapped"
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    sign(trust, load_bundle(folder))
    operator(server, "publish", trust.signed, waits=False)
    operator(server, "release", "start", "mlp-s", "2", "--percent", "100")
    wait_until(lambda: "halted" in how_far(server))
    assert offered.bundle in slots(device).known_bad
    assert slots(device).active == ""


def test_a_device_that_dies_with_the_new_bundle_halts_its_rollout_and_is_named(
    server, device, factory, trust, tmp_path
):
    """Its agent is killed while the bundle has yet to prove itself, and never starts again."""
    second = release(factory, learnt(factory, 7), tmp_path / "second", version="2")
    text = device.config.read_text().replace("health_s = 1.0", "health_s = 600.0")
    device.config.write_text(text)
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    sign(trust, second)
    operator(server, "publish", trust.signed, waits=False)
    operator(server, "release", "start", "mlp-s", "2", "--patience", "5")
    wait_until(lambda: slots(device).phase is Phase.COMMIT)
    device.kill()
    wait_until(lambda: published(server)["lost"] == [DEVICE])
    assert "halted (1 of 1 devices" in how_far(server)
    assert DEVICE in operator(server, "releases", waits=False)
    device.start()  # somebody pulled the plug and put it in again: it goes back by itself, or on with its trial
    wait_until(lambda: not published(server)["lost"])
    assert "halted" in how_far(server)


def test_the_servers_own_student_goes_to_some_first_and_may_be_taken_back(server, device, trust):
    """As a bundle of the workstation does, but signed by the server, for the place that is its own."""
    operator(server, "publish", trust.signed, waits=False)
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    assert not students(server)
    operator(server, "round-now")
    wait_until(lambda: "student.loss" in operator(server, "status", waits=False))
    operator_elsewhere(server, "release", "--percent", "0", "--tag", "canary")
    (made,) = wait_until(lambda: students(server))
    assert "tag canary" in made["rollout"]
    assert slots(device).phase is Phase.IDLE
    assert slots(device).active == ""  # the device has no such tag
    operator(server, "devices", "tag", DEVICE, "canary")
    wait_until(runs_digest(device, made["bundle"]))
    assert slots(device).succeeded
    wait_until(lambda: "1 run it" in students(server)[0]["rollout"])
    operator(server, "withdraw")
    wait_until(runs_digest(device, ""))
