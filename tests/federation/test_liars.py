"""Four liars of ten in a federation of real cores: the canaries know them before their first words are summed."""

from dataclasses import replace

import numpy as np
import pytest

from fd_protocol import codec
from fd_protocol.messages import ConsensusBlock
from fd_protocol.payload import decode_body
from fleet_sim.factory import equip
from fleet_sim.federation import Simulation
from fleet_sim.scenario import PRESETS, AttackTerms
from fleet_sim.worlds import digits
from tests.federation.stage import Stage

DEVICES, LIARS = 10, 4
FIRST_ROUND = replace(PRESETS["digits"], devices=DEVICES, rounds=1, canaries=True)


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    world = replace(digits(0, devices=DEVICES), canaries=np.arange(0, 600, 5))
    return Stage(world, equip(world, FIRST_ROUND.models, 0, tmp_path_factory.mktemp("ten")))


def first_consensus(stage, *, liars, canaries):
    """Its accuracy on the probes that are no canaries."""
    scenario = replace(FIRST_ROUND, canaries=canaries, attack=AttackTerms(liars, "lma"))
    simulation = Simulation(scenario, stage.world, stage.equipment, 0)
    list(simulation.run())
    server = simulation.server
    blocks = [codec.decode(server.store.blob(d), ConsensusBlock) for d in server.aggregator.state.consensus.blocks]
    rows = np.concatenate(
        [decode_body(b.body, b.codec, b.slice.count, b.slice.classes).probabilities() for b in blocks]
    )
    is_right = rows.argmax(axis=1) == stage.equipment.public_probes.labels
    return np.delete(is_right, stage.world.canaries).mean()


def test_liars_own_the_first_consensus_without_canaries_and_not_with_them(ten):
    honest = first_consensus(ten, liars=0, canaries=True)
    assert first_consensus(ten, liars=LIARS, canaries=True) > honest - 0.1
    assert first_consensus(ten, liars=LIARS, canaries=False) < honest - 0.3
