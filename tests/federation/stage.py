"""A small stage for whole federations: four devices of three families, three rounds on digits, a second each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet_sim.factory import Equipment, equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab
from fleet_sim.measuring import RoundResult
from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.worlds import World, digits

DEVICES, ROUNDS, SEED = 4, 3, 0
SCENARIO = replace(PRESETS["digits"], devices=DEVICES, rounds=ROUNDS)


class Stage:
    """World and equipment, made once; every play is a fresh federation on them."""

    def __init__(self, world: World, equipment: Equipment) -> None:
        self.world, self.equipment = world, equipment
        self.lab = Lab(world, equipment.bundles)

    def simulation(self, scenario: Scenario = SCENARIO, seed: int = SEED, folder=None) -> Simulation:
        return Simulation(scenario, self.world, self.equipment, seed, folder=folder)

    def play(self, scenario: Scenario = SCENARIO, seed: int = SEED, folder=None) -> list[RoundResult]:
        return list(self.simulation(scenario, seed, folder).run())


@pytest.fixture(scope="session")
def stage(tmp_path_factory) -> Stage:
    world = digits(SEED, devices=DEVICES)
    return Stage(world, equip(world, SCENARIO.models, SEED, tmp_path_factory.mktemp("stage")))


@pytest.fixture(scope="session")
def undisturbed(stage) -> list[bytes]:
    """The consensus of every round of a federation in which nothing goes wrong."""
    return consensuses(stage.play())


def consensuses(results: list[RoundResult]) -> list[bytes]:
    return [result.consensus_sha256 for result in results]


def voices(simulation: Simulation) -> float:
    """How many devices spoke in the last consensus."""
    consensus = simulation.server.aggregator.state.consensus
    assert consensus is not None
    return consensus.metrics["voices"]


def run_on(simulation: Simulation) -> list[bytes]:
    """Play on to the end, and return the consensuses that were still to come."""
    return consensuses(list(simulation.run()))
