"""Rounds that ask for a part of the public set, with real devices: what is saved, and what an absent device misses."""

from dataclasses import replace

import pytest

from edge_agent.round.participant import Phase
from tests.federation.stage import DEVICES, SCENARIO, consensuses, voices

ROUNDS = 31
SLICES = 4


def asking(stage, rounds, **changes):
    """A federation whose rounds ask for a quarter of the public set."""
    simulation = stage.simulation(replace(SCENARIO, rounds=rounds))
    server = simulation.server
    terms = replace(server.settings.rounds, probes=server.probes.count // SLICES, choose="need", **changes)
    server.crash()
    server.settings = replace(server.settings, rounds=terms)
    server.start()
    return simulation


def sent_bytes(simulation):
    return sum(simulation.broker.sent_bytes[device.id] for device in simulation.devices)


def test_devices_train_on_the_whole_consensus_and_send_a_part_of_it(stage, undisturbed):
    simulation = asking(stage, rounds=6)
    results = list(simulation.run())
    state = simulation.server.aggregator.state
    assert len(results) == 6
    assert voices(simulation) == DEVICES
    assert len(state.consensus.portions) == SLICES
    assert sum(portion.slice.count for portion in state.consensus.portions) == simulation.server.probes.count
    for device in simulation.devices:
        assert device.agent.state.taken[-1] == state.consensus.sha256
    everything = stage.simulation(replace(SCENARIO, rounds=6))
    assert len(consensuses(list(everything.run()))) == 6
    assert sent_bytes(simulation) < sent_bytes(everything) / 2


@pytest.mark.parametrize("has_session", [True, False], ids=["the broker queued it all", "its session expired"])
def test_a_device_that_was_away_for_thirty_rounds_is_current_after_one_connect(stage, has_session, monkeypatch):
    if has_session:  # as agents had it that asked for 14 days of queueing
        monkeypatch.setattr("edge_agent.presence.SESSION_S", 14 * 86_400)
    simulation = asking(stage, rounds=ROUNDS, minimum_online=DEVICES - 1)
    *present, absent = simulation.devices
    play = simulation.run()
    next(play)
    simulation.settle()
    absent.crash()
    simulation.devices = present  # nobody gives it time to run
    while (result := next(play)).number < ROUNDS:
        pass
    simulation.settle()
    consensus = simulation.server.aggregator.state.consensus
    assert result.number == consensus.round.number == ROUNDS
    assert {portion.round for portion in consensus.portions} != {ROUNDS}, "some of it is older than the last round"
    assert consensus.sha256 not in absent.agent.state.taken
    before = simulation.broker.received_bytes[absent.id]
    absent.start()
    simulation.devices = [*present, absent]
    simulation.settle()
    assert absent.agent.state.taken[-1] == consensus.sha256
    assert absent.agent.state.phase is Phase.IDLE
    trained = absent.agent.state.taken
    assert len(trained) == len(set(trained)) <= 2, "it did not train on what had gone by"
    if not has_session:
        received = simulation.broker.received_bytes[absent.id] - before
        whole = sum(len(simulation.server.store.blob(digest)) for digest in consensus.blocks)
        assert received < whole + 4_000, "the consensus came once"
