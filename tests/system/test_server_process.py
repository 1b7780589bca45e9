"""`broker-server run` as a process beside a real Mosquitto: killed, started again, stopped."""

import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.service import utc_ms
from fd_protocol import codec
from fd_protocol.messages import (
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Receipt,
    RoundOffer,
    ServerState,
    Status,
)
from fd_protocol.parts import split
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkSettings, LinkUp
from tests.broker_server.artifacts import TASK, build_artifacts
from tests.support.brokers import links, needs_mosquitto, next_event, plain_mosquitto
from tests.support.patience import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]

TOPICS = Topics("demo")
LOG = "server.log"
START_S = 120.0
"""A busy machine takes a while to import onnxruntime."""


@pytest.fixture
def broker(tmp_path):
    with plain_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def config(tmp_path, broker):
    main(["init", str(tmp_path), "--federation", "demo", "--trust", "none"])
    build_artifacts(tmp_path)
    path = tmp_path / CONFIG_NAME
    text = path.read_text().replace("port = 8883", f"port = {broker.port}")
    path.write_text(text.replace("minimum_online = 2", "minimum_online = 3"))
    return path


@pytest.fixture
def processes():
    with ExitStack() as stack:

        def start(config):
            command = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]
            with (config.parent / LOG).open("ab") as log:
                process = subprocess.Popen([*command, "run", "--config", str(config)], stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


class Device:
    """A device as its messages show it."""

    def __init__(self, name, link):
        self.name, self.link = name, link
        next_event(link, LinkUp)
        state = DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",))
        link.publish(TOPICS.state(name), codec.encode(state), retain=True)

    def hear(self, kind):
        """Return the next message of a kind that arrives."""
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            payload = next_event(self.link, Arrived, START_S).payload
            if is_kind(payload, kind):
                return codec.decode(payload, kind)
        raise TimeoutError(kind.__name__)

    def contribute(self, offer):
        rng = np.random.default_rng([*self.name.encode()])
        p = rng.dirichlet(np.ones(3), offer.slice.count).astype(np.float32)
        body = encode_body(quantise(SoftLabels(p, offer.temperature), offer.codec))
        payload = codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, body))
        for part in split(payload, offer.round, Kind.CONTRIBUTION):
            self.link.publish(TOPICS.upload(self.name), codec.encode(part))


def is_kind(payload, kind):
    try:
        codec.decode(payload, kind)
    except codec.DecodeError:
        return False
    return True


def test_a_server_that_is_killed_in_a_round_goes_on_with_it_and_stops_when_told(config, broker, processes):
    settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in ("kettle", "lamp", "toaster")]
    with links(broker.port, *settings) as opened:
        first = processes(config)
        kettle, lamp, toaster = (Device(s.client_id, link) for s, link in zip(settings, opened, strict=True))
        offer = kettle.hear(RoundOffer)
        assert offer.deadline_utc_s > utc_ms() // 1000
        kettle.contribute(offer)
        assert kettle.hear(Receipt).status is Status.STORED
        first.kill()
        first.wait()
        lamp.contribute(offer)
        kettle.contribute(offer)
        second = processes(config)
        assert lamp.hear(Receipt).status is Status.STORED
        assert kettle.hear(Receipt).status is Status.DUPLICATE
        toaster.contribute(offer)
        assert lamp.hear(ConsensusBlock).round == offer.round
        second.send_signal(signal.SIGINT)
        assert second.wait(START_S) == 0
        while lamp.hear(ServerState).online:
            pass


def test_a_broker_that_is_absent_does_not_stop_the_server_from_stopping(config, broker, processes):
    broker.stop()
    server = processes(config)
    wait_until(lambda: b"broker lost" in (config.parent / LOG).read_bytes())
    server.send_signal(signal.SIGTERM)
    assert server.wait(START_S) == 0
