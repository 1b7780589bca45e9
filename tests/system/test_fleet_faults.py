"""A federation of real programs, and what befalls it: an absent broker, a dying one, a dying server, a liar."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest

from broker_server.cli import CONFIG_NAME
from broker_server.journal import Journal
from fd_protocol import codec
from fd_protocol.messages import Kind, Receipt, RoundOffer, Status
from fd_runtime.links.link import Arrived, LinkSettings
from fd_runtime.storage.store import Store, StoreError
from fleet_sim.real.processes import ours
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.processes import TOPICS, AgentProcess, settings_text
from tests.support.brokers import links, needs_mosquitto, next_event, plain_mosquitto
from tests.support.hostile import CONTRIBUTIONS, NOISE, ROUNDS, answer_to, encoded_parts
from tests.support.patience import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]

DEVICES = ("dev-1", "dev-2", "dev-3")
RETAINED = {TOPICS.round, TOPICS.consensus(0), *(TOPICS.state(device) for device in DEVICES)}
START_S = 120.0
"""A busy machine takes a while to start four programs."""
SETTINGS = """
federation = "{federation}"
trust = "none"
artifacts = {{ public_set = "dev-1/public", bundle = "dev-1/bundle" }}
state = {{ folder = "state" }}
broker = {{ host = "127.0.0.1", port = {port} }}
rounds = {{ minimum_online = 3, count = {rounds}, pause_s = 1.0 }}
student = {{ enabled = false }}
"""


class ServerProcess:
    """`broker-server run` in the folder where the devices have theirs."""

    def __init__(self, folder, port, rounds):
        self.state_folder, self._log_path = folder / "state", folder / "server.log"
        self._config = folder / CONFIG_NAME
        self._config.write_text(SETTINGS.format(federation=FEDERATION, port=port, rounds=rounds))
        self._process = None

    def start(self):
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen([ours("broker-server"), "run", "--config", self._config], stderr=log)

    def end(self, how=signal.SIGTERM):
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def log(self):
        return self._log_path.read_text()

    @property
    def state(self):
        """The state as a restart would find it; None before there is any."""
        with suppress(StoreError), Store.view(self.state_folder / "server.db") as store:
            return Journal(store, FEDERATION).replay()

    def contributions(self):
        """Every payload that is stored: (device, round) and its digest, in the order of devices."""
        with Store.view(self.state_folder / "server.db") as store:
            rows = store.payloads(FEDERATION, Kind.CONTRIBUTION.value)
        return [((row.device, row.round), row.sha256) for row in rows]

    def wait_for(self, claim):
        """Return the first state of which `claim` holds."""
        return wait_until(lambda: (state := self.state) is not None and claim(state) and state, START_S)


class Fleet:
    """A broker with a memory, a server and three devices; none of them started."""

    def __init__(self, folder, rounds):
        self.store = folder / "broker"
        self.store.mkdir()
        self.broker = plain_mosquitto(folder, "persistence true", f"persistence_location {self.store}/")
        port = self.broker.port
        self.devices = [
            AgentProcess(folder / device, port, settings=settings_text(port, device__id=device)) for device in DEVICES
        ]
        self.server = ServerProcess(folder, port, rounds)

    def start_programs(self):
        self.server.start()
        for device in self.devices:
            device.start()

    def hold(self):
        """Let the last device's model stand still: whatever round it has not contributed to stays open."""
        for worker in wait_until(self.devices[-1].worker_ids):
            os.kill(worker, signal.SIGSTOP)

    def release(self):
        for worker in self.devices[-1].worker_ids():
            os.kill(worker, signal.SIGCONT)

    def wait_in_the_middle_of(self, number):
        """Wait until all devices but the held one have contributed to a round; return it."""
        state = self.server.wait_for(lambda s: s.number == number and s.has_open_round and s.round.heard == 2)
        return state.round

    def wait_for_consensus(self, number):
        state = self.server.wait_for(lambda s: s.consensus is not None and s.consensus.round.number >= number)
        return state.consensus

    def end(self):
        self.release()
        for device in self.devices:
            device.end()
        self.server.end()
        self.broker.stop()


@pytest.fixture
def new_fleet(tmp_path):
    fleets = []

    def make(rounds):
        fleets.append(Fleet(tmp_path, rounds))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


@pytest.fixture
def held(new_fleet):
    """A federation in the middle of its first and last round."""
    fleet = new_fleet(rounds=1)
    fleet.broker.start()
    fleet.devices[-1].start()
    fleet.hold()
    fleet.server.start()
    for device in fleet.devices[:-1]:
        device.start()
    fleet.wait_in_the_middle_of(1)
    return fleet


def hear_retained(broker):
    """Wait until everything that a broker should retain has been told; return it as a client that comes then hears it.

    Topic -> payload.
    """
    for _ in range(2):
        heard = {}
        with links(broker.port, LinkSettings("observer", subscriptions=(f"{TOPICS.base}/#",))) as [link]:
            while not heard.keys() >= RETAINED:
                arrived = next_event(link, Arrived, START_S)
                heard.setdefault(arrived.topic, arrived)  # what is said meanwhile is not retained for whoever hears it
    assert all(heard[topic].retained for topic in RETAINED)
    return {topic: heard[topic].payload for topic in RETAINED}


def check_everyone_counted_once(fleet, number):
    keys = [key for key, _ in fleet.server.contributions() if key[1] == number]
    assert keys == [(device, number) for device in DEVICES]


def test_programs_that_start_before_their_broker_find_it(new_fleet):
    fleet = new_fleet(rounds=1)
    fleet.start_programs()
    wait_until(lambda: "broker lost" in fleet.server.log())
    for device in fleet.devices:
        wait_until(lambda device=device: "not connected" in device.log.read_text())
    fleet.broker.start()
    fleet.wait_for_consensus(1)
    check_everyone_counted_once(fleet, 1)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_restarts_in_the_middle_of_a_round_costs_nothing(held, end):
    before, stored = held.server.state.round.id, held.server.contributions()
    getattr(held.broker, end)()
    held.release()
    held.broker.start()
    assert held.wait_for_consensus(1).round == before
    check_everyone_counted_once(held, 1)
    assert held.server.contributions()[:2] == stored


def test_a_broker_that_lost_its_memory_is_told_everything_again(new_fleet):
    fleet = new_fleet(rounds=2)
    fleet.broker.start()
    fleet.start_programs()
    fleet.wait_for_consensus(1)
    fleet.hold()
    current = fleet.wait_in_the_middle_of(2)
    before = hear_retained(fleet.broker)

    fleet.broker.kill()
    shutil.rmtree(fleet.store)
    fleet.store.mkdir()
    fleet.broker.start()

    after = hear_retained(fleet.broker)
    assert codec.decode(after.pop(TOPICS.round), RoundOffer).round == current.id
    assert after.items() <= before.items()
    fleet.release()
    assert fleet.wait_for_consensus(2).round == current.id
    check_everyone_counted_once(fleet, 2)


def test_a_server_killed_in_the_middle_of_a_round_goes_on_with_the_same_round(held):
    before, stored = held.server.state.round.id, held.server.contributions()
    held.server.end(signal.SIGKILL)
    held.release()
    held.server.start()
    assert held.wait_for_consensus(1).round == before
    check_everyone_counted_once(held, 1)
    assert held.server.contributions()[:2] == stored


def test_a_server_restored_from_an_old_backup_begins_a_new_epoch_and_the_devices_go_on(new_fleet, tmp_path):
    fleet = new_fleet(rounds=0)
    fleet.broker.start()
    fleet.start_programs()
    old = fleet.wait_for_consensus(1).round
    fleet.server.end()
    shutil.copytree(fleet.server.state_folder, tmp_path / "backup")
    fleet.server.start()
    fleet.wait_for_consensus(old.number + 2)

    fleet.server.end(signal.SIGKILL)
    shutil.rmtree(fleet.server.state_folder)
    shutil.copytree(tmp_path / "backup", fleet.server.state_folder)
    fleet.server.start()

    state = fleet.server.wait_for(lambda s: s.epoch != old.epoch and s.consensus is not None)
    assert state.consensus.round.epoch == state.epoch
    for device in fleet.devices:
        wait_until(lambda device=device: (s := device.state()) is not None and s.offer.round.epoch == state.epoch)
        assert device.process.poll() is None


def test_what_does_not_belong_to_the_round_is_refused_with_its_reason_and_harms_nothing(held):
    offer = held.server.state.round.offer
    wrong = {reason: encoded_parts(make(offer), offer.round) for reason, make in CONTRIBUTIONS.items()}
    wrong |= {reason: encoded_parts(answer_to(offer), make(offer.round)) for reason, make in ROUNDS.items()}
    settings = LinkSettings("mallory", subscriptions=(TOPICS.receipt("mallory"),))
    with links(held.broker.port, settings) as [mallory]:
        for payload in [*NOISE.values(), *(part for parts in wrong.values() for part in parts)]:
            mallory.publish(TOPICS.upload("mallory"), payload)
        receipts = [codec.decode(next_event(mallory, Arrived, START_S).payload, Receipt) for _ in wrong]
    assert [receipt.reason for receipt in receipts] == list(wrong)
    assert {receipt.status for receipt in receipts} == {Status.REFUSED}
    held.release()
    assert held.wait_for_consensus(1).round == offer.round
    check_everyone_counted_once(held, 1)
