"""A device killed in every phase: the round goes on, with the same payload, and nothing is learned by halves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.round.participant import Phase
from fd_protocol.messages import Status
from fd_runtime.links.link import LinkSettings
from tests.edge_agent.processes import LONG, TERMS, TOPICS, AgentProcess, ScriptedServer
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]


class World:
    """A broker, a scripted server and one device."""

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.broker = plain_mosquitto(folder).start()
        self.agent = AgentProcess(folder / "device", self.broker.port)
        self.server = ScriptedServer(
            LinkSettings(
                "agg",
                port=self.broker.port,
                subscriptions=TOPICS.server_filters(),
                reconnect_min_s=0.05,
                reconnect_max_s=0.2,
            ),
            self.agent.public,
        )

    def close(self):
        self.agent.end()
        self.server.link.close()
        self.broker.stop()

    def finish(self, number=1):
        """Let the round come to its end, whatever has happened to it already."""
        self.server.receipt(self.server.contribution(number))
        self.server.consensus(number)
        return self.server.report(number)

    def undisturbed(self, folder, terms):
        """Return the checkpoint that a device has which nobody kills."""
        twin = World(folder)
        try:
            twin.agent.start()
            twin.server.offer(training=terms)
            twin.finish()
            return twin.agent.checkpoint.read_bytes()
        finally:
            twin.close()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def kill_and_start(world):
    world.agent.kill()
    wait_until(lambda: not world.agent.worker_ids())
    world.agent.start()


def test_killed_while_idle_it_takes_up_the_next_round(world):
    world.agent.start()
    world.agent.wait_for(Phase.IDLE)
    kill_and_start(world)
    world.server.offer()
    assert world.finish().accepted


def test_killed_while_predicting_it_predicts_again(world, tmp_path):
    terms = replace(TERMS, warm_up_epochs=LONG)
    world.agent.start()
    with world.agent.held_worker():
        world.server.offer(training=terms)
        world.agent.wait_for(Phase.PREDICTING)
    kill_and_start(world)
    assert world.finish().accepted
    assert len(world.server.payloads()) == 1
    assert world.agent.checkpoint.read_bytes() == world.undisturbed(tmp_path / "twin", terms)


def test_killed_while_submitting_it_sends_the_same_bytes(world):
    world.agent.start()
    world.server.offer()
    world.server.contribution()
    kill_and_start(world)
    world.server.wait(lambda: len(world.server.parts) > 1)
    assert world.finish().accepted
    assert len(world.server.payloads()) == 1


def test_killed_while_awaiting_it_learns_when_the_consensus_comes(world):
    world.agent.start()
    world.server.offer()
    world.server.receipt(world.server.contribution())
    world.agent.wait_for(Phase.AWAITING)
    kill_and_start(world)
    assert world.finish().accepted
    assert len(world.server.payloads()) == 1


@pytest.mark.parametrize("victim", ["supervisor", "worker"])
def test_killed_while_training_it_trains_again_from_the_same_weights(world, tmp_path, victim):
    terms = replace(TERMS, epochs=LONG)
    world.agent.start()
    world.server.offer(training=terms)
    world.server.receipt(world.server.contribution())
    with world.agent.held_worker():
        world.server.consensus()
        world.agent.wait_for(Phase.TRAINING)
        before = world.agent.checkpoint.read_bytes()
    if victim == "supervisor":
        kill_and_start(world)
    else:
        world.agent.kill_worker()
    assert checkpoints.load(world.agent.checkpoint) is not None
    assert world.agent.checkpoint.read_bytes() == before
    assert world.server.report().accepted
    assert len(world.server.payloads()) == 1
    assert world.agent.checkpoint.read_bytes() == world.undisturbed(tmp_path / "twin", terms)


def test_killed_while_reporting_it_reports_and_trains_no_more(world):
    world.agent.start()
    world.server.offer(training=replace(TERMS, epochs=LONG))
    world.server.receipt(world.server.contribution())
    with world.agent.held_worker():
        world.server.consensus()
        world.agent.wait_for(Phase.TRAINING)
        world.broker.kill()
    world.agent.wait_for(Phase.REPORTING)
    learned = world.agent.checkpoint.read_bytes()
    kill_and_start(world)
    world.broker.start()
    assert world.server.report().accepted
    assert world.agent.checkpoint.read_bytes() == learned


def test_a_worker_killed_while_predicting_costs_an_attempt_and_not_the_round(world):
    world.agent.start()
    with world.agent.held_worker():
        world.server.offer(training=replace(TERMS, warm_up_epochs=LONG))
        world.agent.wait_for(Phase.PREDICTING)
    world.agent.kill_worker()
    assert world.finish().accepted
    assert len(world.server.payloads()) == 1


def test_killed_again_and_again_it_still_ends_the_round_with_one_payload(world):
    world.agent.start()
    world.server.offer()
    for _ in range(4):
        kill_and_start(world)
    part = world.server.contribution()
    world.server.receipt(part, Status.STORED)
    for _ in range(3):
        kill_and_start(world)
    assert world.finish().accepted
    assert len(world.server.payloads()) == 1


def test_every_life_is_counted_and_a_killed_one_is_buried_by_its_will(world):
    world.agent.start()
    world.server.wait(lambda: world.server.states)
    world.agent.kill()
    world.server.wait(lambda: not world.server.states[-1].online)
    world.agent.start()
    world.server.wait(lambda: world.server.states[-1].online)
    assert [(state.boot, state.online) for state in world.server.states] == [(1, True), (1, False), (2, True)]
