"""A device is told of another bundle: the real program, a real broker, a real web server."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.round.participant import Phase
from edge_agent.slots import machine
from edge_agent.slots.shelf import Shelf
from edge_agent.training.data_use import used
from fd_protocol import codec
from fd_protocol.messages import Command, Release
from fd_protocol.topics import MODEL
from fd_runtime.links.link import Arrived, LinkDown, LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store
from tests.edge_agent.processes import DEVICE, TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.edge_agent.slots.shop import Shop, make_factory
from tests.support.brokers import AGGREGATOR, needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    return Shop(make_factory(folder / "factory"), folder / "shop")


@pytest.fixture
def url(shop):
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shop.folder)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


@pytest.fixture
def port(tmp_path):
    broker = plain_mosquitto(tmp_path)
    broker.start()
    yield broker.port
    broker.stop()


@pytest.fixture
def device(shop, url, port, tmp_path):
    text = settings_text(port, model__runtime="onnxruntime")
    releases = f'\n[releases]\nurl = "{url}"\nroot = "{shop.root}"\nhealth_s = 1.0\n'
    agent = AgentProcess(tmp_path / "device", port, settings=text + releases)
    shutil.rmtree(agent.folder / "bundle")
    shutil.copytree(shop.factory.folder, agent.folder / "bundle")
    yield agent
    agent.end()


@pytest.fixture
def server(device, port):
    settings = LinkSettings(AGGREGATOR, port=port, subscriptions=TOPICS.server_filters())
    scripted = ScriptedServer(settings, device.public)
    yield scripted
    scripted.link.close()


@pytest.fixture
def told(port):
    """What the device tells of its way to another bundle."""
    heard = []
    link = MqttLink(LinkSettings("watcher", port=port, subscriptions=(TOPICS.command(DEVICE, MODEL),)))

    def listen():
        while not isinstance(event := link.events.get(), LinkDown):
            if isinstance(event, Arrived):
                heard.append(codec.decode(event.payload, Command))

    threading.Thread(target=listen, daemon=True).start()
    yield heard
    link.close()


def announce(server, shop, offered):
    release = Release(
        shop.factory.manifest.family,
        bytes.fromhex(offered.bundle),
        offered.version,
        parent=shop.factory.digest,
        package=bytes.fromhex(offered.package) if offered.package else b"",
        package_bytes=offered.package_bytes,
    )
    server.say(TOPICS.release(shop.factory.manifest.family), release, retain=True)


def slots(device):
    return Shelf(device.folder / "state" / "slots").load()


def runs(server, bundle):
    return server.wait(lambda: server.states and server.states[-1].online and server.states[-1].bundle == bundle)


def play_round(server, number):
    server.offer(number)
    server.receipt(server.contribution(number))
    server.consensus(number)
    return server.report(number)


def test_a_device_follows_a_release_and_goes_back_when_it_is_withdrawn(device, server, shop, told):
    device.start()
    runs(server, shop.factory.digest)
    assert play_round(server, 1).accepted
    offered = shop.good()
    announce(server, shop, offered)
    runs(server, bytes.fromhex(offered.bundle))
    wait_until(lambda: slots(device).phase is machine.Phase.IDLE)
    assert play_round(server, 2).accepted  # it warms up with the new bundle, and goes on
    wait_until(lambda: slots(device).previous is None)
    with Store.view(device.folder / "state" / "agent.db") as store:
        assert used(store).received_bytes > offered.package_bytes  # the package counts as data too
    steps = [one.step or one.state.value for one in told]
    assert steps[:4] == ["download", "install", "reboot", "commit"]
    assert steps[-1] == "successful"
    announce(server, shop, machine.Offered(shop.factory.digest.hex(), "1"))
    runs(server, shop.factory.digest)
    assert play_round(server, 3).accepted
    wait_until(lambda: slots(device).phase is machine.Phase.IDLE)


def learnt(device, digest=""):
    """What the device has learnt with the bundle of its settings, or with one that came over the air."""
    state = device.folder / "state"
    return checkpoints.load(state / "slots" / f"{digest}.checkpoint" if digest else state / "checkpoint")


def test_what_a_device_has_learnt_goes_with_it_where_the_new_bundle_keeps_it(device, server, shop, told):
    device.start()
    runs(server, shop.factory.digest)
    assert play_round(server, 1).accepted
    before = learnt(device)
    offered = shop.keeping(epochs=1)
    announce(server, shop, offered)
    runs(server, bytes.fromhex(offered.bundle))
    wait_until(lambda: slots(device).phase is machine.Phase.IDLE)
    after = learnt(device, offered.bundle)
    assert (after.bundle.hex(), after.theta, after.is_warm) == (offered.bundle, before.theta, True)
    assert "what was learnt is kept" in slots(device).outcome
    wait_until(lambda: "what was learnt is kept" in told[-1].result.get("outcome", ""))
    assert play_round(server, 2).accepted  # it goes on learning from there


def test_a_device_learns_anew_with_a_bundle_that_does_not_keep_it_and_says_so(device, server, shop):
    device.start()
    runs(server, shop.factory.digest)
    assert play_round(server, 1).accepted
    offered = shop.good("1.r8", epochs=3)
    announce(server, shop, offered)
    runs(server, bytes.fromhex(offered.bundle))
    wait_until(lambda: slots(device).phase is machine.Phase.IDLE)
    assert "it learns anew: the new bundle does not keep it" in slots(device).outcome
    assert learnt(device, offered.bundle) is None
    assert play_round(server, 2).accepted
    assert learnt(device, offered.bundle).is_warm


def test_a_bad_release_changes_nothing_but_the_log(device, server, shop):
    device.start()
    runs(server, shop.factory.digest)
    offered = shop.unlike_its_golden_vectors()
    announce(server, shop, offered)
    wait_until(lambda: offered.bundle in slots(device).known_bad)
    assert play_round(server, 1).accepted
    assert slots(device).active == ""
    assert "golden vectors" in device.log.read_text()


def test_a_release_waits_for_the_end_of_a_round(device, server, shop):
    device.start()
    runs(server, shop.factory.digest)
    server.offer(1)
    part = server.contribution(1)  # its receipt is still to come: the device is busy
    offered = shop.good("1.r5", epochs=12)
    announce(server, shop, offered)
    wait_until(lambda: slots(device).phase is machine.Phase.REBOOT)
    assert device.state().phase is Phase.SUBMITTING
    assert slots(device).active == ""
    server.receipt(part)
    runs(server, bytes.fromhex(offered.bundle))


def test_killed_in_the_middle_it_gets_there_all_the_same(device, server, shop):
    offered = shop.good("1.r6", epochs=9)
    announce(server, shop, offered)
    for _ in range(3):
        device.start()
        wait_until(lambda: device.state() is not None)
        device.kill()
    device.start()
    wait_until(lambda: offered.bundle in (slots(device).active, *slots(device).known_bad))
    runs(server, bytes.fromhex(slots(device).active) if slots(device).active else shop.factory.digest)
