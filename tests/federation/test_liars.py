"""Four liars of ten in a federation of real cores: the canaries know them before their first words are summed."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.methods import rule_named
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.metrics.hearing import heard_rounds, last_voices
from fleet_sim.scenario import PRESETS, AttackTerms
from fleet_sim.worlds import digits
from tests.federation.stage import Stage

DEVICES, LIARS = 10, 4
FIRST_ROUND = replace(PRESETS["digits"], devices=DEVICES, rounds=1, attack=AttackTerms(LIARS, "lma"))


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    world = replace(digits(0, devices=DEVICES), canaries=np.arange(0, 600, 5))
    return Stage(world, equip(world, FIRST_ROUND.models, 0, tmp_path_factory.mktemp("ten")))


def first_consensus(stage, *, canaries):
    """Its accuracy on the probes that are no canaries: of all devices, and of the honest alone."""
    simulation = Simulation(replace(FIRST_ROUND, canaries=canaries), stage.world, stage.equipment, 0)
    ((_, trust),) = heard_rounds(simulation)
    voices = last_voices(simulation.server, trust)
    liars = {f"device-{number}" for number in range(LIARS)}
    rule, known = rule_named(FIRST_ROUND.method.name, FIRST_ROUND.method.terms), stage.equipment.canaries

    def accuracy(heard):
        is_right = rule.consensus(heard).argmax(axis=1) == stage.equipment.public_probes.labels
        return np.delete(is_right, [*known.trust.probes, *known.release.probes]).mean()

    assert len(voices) == DEVICES
    return accuracy(voices), accuracy([voice for voice in voices if voice.device not in liars])


def test_with_canaries_the_first_consensus_is_that_of_the_honest(ten):
    together, honest = first_consensus(ten, canaries=True)
    assert together > honest - 0.05
    assert honest > 0.4


def test_without_canaries_liars_that_claim_to_stand_everywhere_own_it(ten):
    together, honest = first_consensus(ten, canaries=False)
    assert together < 0.15
    assert honest > 0.4
