"""`broker-server run` with its dashboard beside it: watched, restarted, and never the aggregator's trouble."""

import os
import signal
import time
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from broker_server.brokers.loopback import free_port
from fd_protocol.messages import ConsensusBlock, Receipt, RoundOffer, Status
from fd_runtime.links.link import LinkSettings
from tests.support.brokers import links, needs_mosquitto
from tests.system.test_server_process import (  # noqa: F401 - fixtures
    START_S,
    TOPICS,
    Device,
    broker,
    config,
    processes,
)

pytestmark = [pytest.mark.system, needs_mosquitto]


@pytest.fixture
def port(config):  # noqa: F811
    port, text = free_port(), config.read_text()
    head, dashboard = text.split("[dashboard]")
    dashboard = dashboard.replace("enabled = false", "enabled = true").replace("port = 8089", f"port = {port}")
    config.write_text(f"{head}[dashboard]{dashboard}")
    return port


def get(port, address):
    """Return (status, text); 0 where nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{address}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except (URLError, ConnectionError, TimeoutError):
        return 0, ""


def wait_for(port, address, status, text=""):
    end_s = time.monotonic() + START_S
    while not ((found := get(port, address))[0] == status and text in found[1]):
        assert time.monotonic() < end_s, found
        time.sleep(0.1)


def dashboard_of(server):
    """Return the process id of the child."""
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as file:  # noqa: PTH123
        children = [int(pid) for pid in file.read().split()]
    for task in os.listdir(f"/proc/{server.pid}/task"):  # noqa: PTH208
        with open(f"/proc/{server.pid}/task/{task}/children") as file:  # noqa: PTH123
            children += [int(pid) for pid in file.read().split()]
    return children[0]


def test_a_dashboard_that_is_killed_comes_back_and_the_round_goes_on(config, broker, processes, port):  # noqa: F811
    settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in ("kettle", "lamp", "toaster")]
    with links(broker.port, *settings) as opened:
        server = processes(config)
        kettle, lamp, toaster = (Device(s.client_id, link) for s, link in zip(settings, opened, strict=True))
        offer = kettle.hear(RoundOffer)
        wait_for(port, "/readyz", 200, "ready, round 1")
        first = dashboard_of(server)
        os.kill(first, signal.SIGKILL)
        for device in (kettle, lamp, toaster):
            device.contribute(offer)
        assert kettle.hear(Receipt).status is Status.STORED
        assert lamp.hear(ConsensusBlock).round == offer.round
        wait_for(port, "/metrics", 200, "fedistill_server_up 1.0")
        wait_for(port, "/", 200, "Round ")
        assert dashboard_of(server) != first
        server.send_signal(signal.SIGTERM)
        assert server.wait(START_S) == 0
        wait_for(port, "/healthz", 0)


def test_a_dashboard_ends_with_a_server_that_is_killed(config, broker, processes, port):  # noqa: F811
    server = processes(config)
    wait_for(port, "/readyz", 200)
    server.kill()
    server.wait()
    wait_for(port, "/healthz", 0)
