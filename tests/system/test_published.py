"""`broker-server publish`, end to end: a server that serves packages, a device that follows, and the way back.

The real programs, a real Mosquitto, a real HTTP server on loopback; the operator has the command line alone.
"""

import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from broker_server.cli import CONFIG_NAME, main
from edge_agent.slots.machine import Phase
from edge_agent.slots.shelf import Shelf
from fd_runtime.releases import release
from tests.edge_agent.artifacts import write_public_set
from tests.edge_agent.patience import wait_until
from tests.edge_agent.processes import FEDERATION, AgentProcess, settings_text
from tests.edge_agent.slots.shop import learnt, make_factory
from tests.support.brokers import free_port, needs_mosquitto, plain_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]

COMMAND = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]


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
def server(tmp_path, broker, factory, port):
    """Settings of a server that runs, and serves packages on `port`."""
    folder = tmp_path / "server"
    assert main(["init", str(folder), "--federation", FEDERATION, "--trust", "none"]) == 0
    shutil.copytree(factory.folder, folder / "bundle")
    write_public_set(folder / "public_set")
    config = folder / CONFIG_NAME
    text = config.read_text().replace("port = 8883", f"port = {broker.port}")
    before, after = text.split("[packages]")
    after = after.replace("enabled = false", "enabled = true", 1).replace("port = 8443", f"port = {port}", 1)
    config.write_text(f"{before}[packages]{after}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "run", "--config", str(config)], stderr=log)
    wait_until((folder / "state" / "server.db").exists)
    yield config
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()


@pytest.fixture
def device(tmp_path, broker, factory, port):
    text = settings_text(broker.port, model__runtime="onnxruntime")
    releases = f'\n[releases]\nurl = "http://127.0.0.1:{port}"\nhealth_s = 1.0\n'
    agent = AgentProcess(tmp_path / "device", broker.port, settings=text + releases)
    shutil.rmtree(agent.folder / "bundle")
    shutil.copytree(factory.folder, agent.folder / "bundle")
    yield agent
    agent.end()


def operator(config, *arguments):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments), "--config", str(config), "--wait", "60"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def slots(device):
    return Shelf(device.folder / "state" / "slots").load()


def test_one_command_brings_a_bundle_to_a_device_and_another_takes_it_back(server, device, factory, tmp_path):
    second = release(factory, learnt(factory, 10), tmp_path / "second", version="2")
    device.start()
    device.wait_for_standing(lambda standing: standing.vitals.is_connected)
    said = operator(server, "publish", second.folder, "--parent", factory.folder)
    assert "2 is what devices of family mlp-s run from now on" in said
    assert "packages.enabled" not in said
    wait_until(lambda: slots(device).active == second.digest.hex() and slots(device).phase is Phase.IDLE)
    assert slots(device).succeeded
    assert "the first bundle is current" in operator(server, "withdraw")
    wait_until(lambda: slots(device).active == "" and slots(device).phase is Phase.IDLE)


def test_a_device_that_was_off_hears_of_it_when_it_comes(server, device, factory, tmp_path):
    second = release(factory, learnt(factory, 9), tmp_path / "second", version="2")
    operator(server, "publish", second.folder)  # whole: the device needs no parent
    device.start()
    wait_until(lambda: slots(device).active == second.digest.hex())
