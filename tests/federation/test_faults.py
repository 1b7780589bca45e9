"""Whatever goes wrong on the way, every round ends and its consensus is the one that it would have been."""

from dataclasses import replace

import pytest

from fleet_sim.bus.bus import Faults
from fleet_sim.federation.simulation import StuckError
from fleet_sim.scenario import Crashes
from tests.federation.stage import DEVICES, ROUNDS, SCENARIO, consensuses, run_on, voices


def test_a_federation_plays_all_its_rounds_and_learns(stage):
    results = stage.play()
    assert [result.number for result in results] == [1, 2, 3]
    assert results[-1].clients > results[0].clients
    assert results[-1].student > 0.5


def test_equal_seeds_give_equal_federations(stage, undisturbed):
    assert consensuses(stage.play()) == undisturbed


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "faults",
    [Faults(loss=0.1), Faults(duplicate=0.5), Faults(reorder=0.9), Faults(loss=0.1, duplicate=0.2, reorder=0.5)],
    ids=["loss", "duplicates", "reorder", "all"],
)
def test_the_consensus_is_the_same_in_whatever_order_and_however_often_messages_arrive(
    stage, undisturbed, faults, seed
):
    simulation = stage.simulation(replace(SCENARIO, faults=faults), seed)
    assert run_on(simulation) == undisturbed
    assert voices(simulation) == DEVICES


@pytest.mark.parametrize("seed", range(3))
def test_devices_that_crash_at_any_moment_change_nothing(stage, undisturbed, seed, tmp_path):
    crashing = replace(SCENARIO, crashes=Crashes(device=0.1), faults=Faults(loss=0.1))
    assert consensuses(stage.play(crashing, seed, tmp_path)) == undisturbed


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_crashes_at_any_moment_goes_on_with_the_same_round(stage, undisturbed, seed, tmp_path):
    crashing = replace(SCENARIO, crashes=Crashes(server=0.3), faults=Faults(loss=0.1))
    simulation = stage.simulation(crashing, seed, tmp_path)
    epoch = simulation.server.aggregator.state.epoch
    assert run_on(simulation) == undisturbed
    assert simulation.server.aggregator.state.epoch == epoch


def test_every_contribution_that_was_stored_counts_once(stage):
    simulation = stage.simulation(replace(SCENARIO, faults=Faults(loss=0.1, duplicate=0.5)), seed=5)
    run_on(simulation)
    counters = simulation.server.aggregator.counters
    assert counters["contribution.stored"] == DEVICES * ROUNDS
    assert counters["contribution.duplicate"] > 0


@pytest.mark.parametrize("forget", [False, True], ids=["with its memory", "without its memory"])
def test_a_broker_that_restarts_in_the_middle_of_a_round_costs_nothing(stage, undisturbed, forget):
    simulation = stage.simulation()
    for _ in range(5):  # the offer is out, the first payloads are on their way
        simulation.turn()
    simulation.broker.stop(forget=forget)
    simulation.settle()
    simulation.broker.start()
    assert run_on(simulation) == undisturbed


def test_a_federation_waits_for_a_broker_that_comes_late(stage, undisturbed):
    simulation = stage.simulation()
    simulation.broker.stop()
    for _ in range(3):
        simulation.settle()
        simulation.advance()
    assert simulation.server.aggregator.state.consensus is None
    simulation.broker.start()
    assert run_on(simulation) == undisturbed


def test_a_device_that_dies_delays_its_round_to_the_deadline_and_no_further(stage):
    simulation = stage.simulation()
    server = simulation.server.aggregator
    while not server.state.has_open_round:
        simulation.turn()
    deadline_ms = server.state.round.deadline_ms
    simulation.devices.pop().crash()
    while server.state.has_open_round:
        simulation.settle()
        simulation.advance()
    assert server.state.consensus.round.number == 1
    assert voices(simulation) == DEVICES - 1
    assert deadline_ms <= simulation.clock.now_ms < deadline_ms + 10_000


def test_a_federation_that_cannot_go_on_says_so(stage):
    simulation = stage.simulation()
    simulation.devices.pop().crash()
    with pytest.raises(StuckError):
        run_on(simulation)
