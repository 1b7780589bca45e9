"""A server that is killed at random moments loses no contribution, counts none twice, and goes on with the same round.

    FEDISTILL_KILLS=100 pytest tests/system/test_server_crashes.py      the whole; without the variable a few kills

It says its counts at the end of the run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Contribution, DeviceState, Kind, Receipt, RoundOffer, ServerState, Status
from fd_protocol.parts import split
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics, parse
from fd_runtime.links.link import Arrived, LinkSettings, LinkUp
from fd_runtime.storage.store import Store
from tests.broker_server.artifacts import TASK, build_artifacts
from tests.support.brokers import links, needs_mosquitto, plain_mosquitto
from tests.support.patience import PATIENCE_S

pytestmark = [pytest.mark.system, needs_mosquitto]

KILLS = int(os.environ.get("FEDISTILL_KILLS", "4"))
TOPICS = Topics("demo")
DEVICES = ("dev-1", "dev-2", "dev-3", "dev-4")
LONGEST_LIFE_S = 1.0
PATIENCE_OF_A_DEVICE_S = 1.0


@dataclass
class Sender:
    """A device that sends a payload until the server says that it has it."""

    name: str
    link: object
    payload: bytes = b""
    offer: RoundOffer | None = None
    sent_s: float = 0.0
    expiry_s: int | None = None
    is_mute: bool = False
    promised: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """(epoch, round) -> digest of the payload that a receipt called stored or a duplicate."""
    refused: Counter = field(default_factory=Counter)

    def begin(self):
        state = DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",))
        self.link.publish(TOPICS.state(self.name), codec.encode(state), retain=True)

    def act(self):
        while not self.link.events.empty():
            self._hear(self.link.events.get())
        if self.payload and time.monotonic() > self.sent_s + PATIENCE_OF_A_DEVICE_S:
            self._send()

    def _hear(self, event):
        match event:
            case LinkUp():
                self.begin()
            case Arrived(topic, payload) if parse(topic).leaf == "round":
                offer = codec.decode(payload, RoundOffer)
                if self.offer is None or offer.round != self.offer.round:
                    self.offer, self.payload = offer, self._answer(offer)
                    self._send()
            case Arrived(topic, payload) if parse(topic).leaf == "receipt":
                self._take(codec.decode(payload, Receipt))

    def _answer(self, offer):
        rng = np.random.default_rng([*self.name.encode(), offer.round.number])
        p = rng.dirichlet(np.ones(3), offer.slice.count).astype(np.float32)
        body = encode_body(quantise(SoftLabels(p, offer.temperature), offer.codec))
        return codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, body))

    def _send(self):
        if self.is_mute:
            return
        self.sent_s = time.monotonic()
        for part in split(self.payload, self.offer.round, Kind.CONTRIBUTION, part_bytes=200):
            self.link.publish(TOPICS.upload(self.name), codec.encode(part), expiry_s=self.expiry_s)

    def _take(self, receipt):
        if receipt.status in (Status.STORED, Status.DUPLICATE):
            self.promised[receipt.round.epoch, receipt.round.number] = receipt.payload_sha256
            if receipt.payload_sha256 == sha256(self.payload):
                self.payload = b""
        elif receipt.status is Status.REFUSED:
            self.refused[receipt.reason] += 1


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", "demo", "--trust", "none"]) == 0
    build_artifacts(tmp_path)
    return tmp_path / CONFIG_NAME


def write(config, **changes):
    text = config.read_text()
    for key, (before, after) in changes.items():
        assert f"\n{key} = {before}" in text, key
        text = text.replace(f"\n{key} = {before}", f"\n{key} = {after}")
    config.write_text(text)


def start(config):
    command = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]
    log = (config.parent / "server.log").open("ab")
    with log:
        return subprocess.Popen([*command, "run", "--config", str(config)], stderr=log)


def test_kills_at_random_moments_lose_nothing_and_double_nothing(config, tmp_path, says):
    count, dice = len(DEVICES), random.Random(0)
    with plain_mosquitto(tmp_path) as broker:
        write(config, port=(8883, broker.port), minimum_online=(2, count), quorum=(2, count), pause_s=("0.0", "0.05"))
        watching = LinkSettings("watch", subscriptions=(TOPICS.server("aggregator"),))
        settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in DEVICES]
        with links(broker.port, watching, *settings) as (watch, *opened):
            senders = [Sender(name, link) for name, link in zip(DEVICES, opened, strict=True)]
            resumed_s = [live(config, senders, watch, dice.uniform(0, LONGEST_LIFE_S)) for _ in range(KILLS)]
            server = start(config)
            try:
                goal = max((number for sender in senders for _, number in sender.promised), default=0) + 1
                until(senders, lambda: all(any(n >= goal for _, n in s.promised) for s in senders), server)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(PATIENCE_S)
    with Store.view(config.parent / "state" / "server.db") as store:
        state, chronicle = Journal(store, "demo").replay(), Chronicle(store, "demo")
        rounds = chronicle.rounds(-1)
        heard = [hearing for one in rounds for hearing in chronicle.hearings(one.epoch, one.number)]
    stored = [(h.device, h.epoch, h.round) for h in heard if h.status == "stored" and h.kind == "contribution"]
    promised = {(s.name, *key): digest for s in senders for key, digest in s.promised.items()}
    kept = {(h.device, h.epoch, h.round): h.sha256 for h in heard if h.status == "stored"}
    lost = [key for key, digest in promised.items() if kept.get(key) != digest]
    doubled = [key for key, times in Counter(stored).items() if times > 1]
    closed = [one for one in rounds if one.phase == "closed"]
    says(
        f"{KILLS} kills of a server, {len(closed)} rounds closed, {len(promised)} contributions promised, "
        f"{len(lost)} lost, {len(doubled)} doubled; from start to presence at most {max(resumed_s):.2f} s"
    )
    assert not lost
    assert not doubled
    assert len({one.epoch for one in rounds}) == 1  # no life began a new one
    assert [one.number for one in rounds[::-1]] == list(range(1, len(rounds) + 1))
    assert all(one.heard == count and one.metrics["voices"] == count for one in closed)
    assert len(rounds) - len(closed) <= 1  # the one that the last stop left open
    assert state.number >= goal


def live(config, senders, watch, life_s):
    """Let a server live for so long after it came online, kill it, and return how long it took to come."""
    started_s, server = time.monotonic(), start(config)
    try:
        until(senders, lambda: is_online(watch), server)
        resumed_s, end_s = time.monotonic() - started_s, time.monotonic() + life_s
        while time.monotonic() < end_s:
            for sender in senders:
                sender.act()
            time.sleep(0.002)
    finally:
        server.kill()
        server.wait()
    forget(watch)
    return resumed_s


def until(senders, claim, server):
    end_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end_s
        assert server.poll() is None, "the server ended by itself"
        for sender in senders:
            sender.act()
        time.sleep(0.002)


def is_online(watch):
    """Whether a birth has come since the last look."""
    return any(codec.decode(message.payload, ServerState).online for message in arrived(watch) if not message.retained)


def forget(watch):
    for _ in arrived(watch):
        pass


def arrived(link):
    while not link.events.empty():
        event = link.events.get()
        if isinstance(event, Arrived):
            yield event


@pytest.mark.parametrize(("expiry_s", "phase"), [(86_400, "closed"), (1, "aborted")])
def test_what_devices_sent_while_a_server_was_dead_counts_in_its_round_unless_it_expired(
    config, tmp_path, expiry_s, phase
):
    """Killed between its offer and the deadline, it comes back after it. Parts of `edge-agent` live for a day more."""
    names = DEVICES[:2]
    with plain_mosquitto(tmp_path) as broker:
        write(config, port=(8883, broker.port), minimum_online=(2, 2), quorum=(2, 2), duration_s=(600, 5))
        settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in names]
        with links(broker.port, *settings) as opened:
            pairs = zip(names, opened, strict=True)
            senders = [Sender(name, link, expiry_s=expiry_s, is_mute=True) for name, link in pairs]
            server = start(config)
            until(senders, lambda: all(sender.offer for sender in senders), server)
            server.kill()
            server.wait()
            for sender in senders:
                sender.is_mute = False
                sender.act()
            time.sleep(6.0)  # past the deadline and the short expiry
            server = start(config)
            try:
                until([], lambda: first_round(config).ended_ms, server)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(PATIENCE_S)
    assert first_round(config).phase == phase


def first_round(config):
    with Store.view(config.parent / "state" / "server.db") as store:
        return Chronicle(store, "demo").rounds(-1)[-1]
