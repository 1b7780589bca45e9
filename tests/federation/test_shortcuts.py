"""What a simulation spares itself changes nothing: every device answers as one that shares nothing with anybody."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.round.participant import Phase
from fleet_sim.bus.bus import Faults
from fleet_sim.factory import equip
from fleet_sim.federation.lanes import Lanes
from fleet_sim.federation.parties import Device
from fleet_sim.federation.simulation import Simulation
from fleet_sim.scenario import PRESETS, AttackTerms, Crashes, ModelTerms
from fleet_sim.worlds import new_class
from tests.federation.stage import SCENARIO, Stage
from tests.support.own_models import OwnModels

STORM = Faults(loss=0.1, duplicate=0.2, reorder=0.5)
PLAYS = {
    "calm": SCENARIO,
    "storm": replace(SCENARIO, faults=STORM),
    "liars": replace(SCENARIO, attack=AttackTerms(1, "random")),
    "half invited": replace(SCENARIO, fraction=0.5),
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Devices with an int8 backbone beside some whose every layer trains."""
    models = ModelTerms(("cnn-s", "mlp-s"), "mlp-s", pretraining=None)
    scenario = replace(PRESETS["digits"], devices=3, rounds=2, models=models)
    world = new_class(0, devices=3, alpha=1.0)
    return Stage(world, equip(world, models, 0, tmp_path_factory.mktemp("backbones"))), scenario


def end_of(stage, scenario, *, seed=1, folder=None, cores=None):
    """Play, and return every consensus and what every device's model says in the end."""
    simulation = Simulation(scenario, stage.world, stage.equipment, seed, folder=folder, cores=cores)
    consensuses = [result.consensus_sha256 for result in simulation.run()]
    rows = [stage.lab.rows(device.profile.family, stage.world.test) for device in simulation.devices]
    logits = [device.core.logits(each.features) for device, each in zip(simulation.devices, rows, strict=True)]
    return consensuses, [each.tobytes() for each in logits], dict(simulation.broker.received_bytes)


@pytest.mark.parametrize("name", PLAYS)
def test_shared_models_learn_and_answer_bit_for_bit_like_models_of_one_s_own(stage, name):
    shared = end_of(stage, PLAYS[name])
    alone = end_of(stage, PLAYS[name], cores=OwnModels(stage.equipment.public))
    assert shared[:2] == alone[:2]


def test_so_do_models_with_a_frozen_backbone(backbones):
    stage, scenario = backbones
    assert end_of(stage, scenario)[:2] == end_of(stage, scenario, cores=OwnModels(stage.equipment.public))[:2]


def test_so_do_models_of_devices_that_crash(stage, tmp_path):
    scenario = replace(SCENARIO, crashes=Crashes(device=0.1), faults=Faults(loss=0.1))
    crashed = end_of(stage, scenario, folder=tmp_path)
    assert crashed[:2] == end_of(stage, SCENARIO, cores=OwnModels(stage.equipment.public))[:2]


@pytest.mark.parametrize("name", ["storm", "liars"])
@pytest.mark.parametrize("count", [1, 3])
def test_it_does_not_matter_in_how_many_processes_a_fleet_trains(stage, name, count):
    """Not even to the broker: the same bytes go to the same devices."""
    with Lanes(stage.equipment.public, count) as lanes:
        assert end_of(stage, PLAYS[name], cores=lanes) == end_of(stage, PLAYS[name])


@pytest.mark.parametrize("name", PLAYS)
def test_a_device_that_is_not_pumped_had_nothing_to_do(stage, name, monkeypatch):
    sparing = end_of(stage, PLAYS[name])
    monkeypatch.setattr(Device, "pump", lambda device: device.agent.pump(0.0))
    assert end_of(stage, PLAYS[name]) == sparing


def test_time_alone_wakes_a_device(stage):
    simulation = stage.simulation()
    device = simulation.devices[-1]
    while device.agent.state.phase is not Phase.SUBMITTING:
        simulation.turn()
    simulation.server.crash()
    simulation.settle()
    assert device.agent.state.phase is Phase.SUBMITTING
    simulation.clock.now_ms += device.agent.state.deadline_ms - device.agent.now_ms
    simulation.turn()
    assert device.agent.state.phase is not Phase.SUBMITTING


def test_a_core_that_cannot_be_opened_in_another_process_is_heard_of(stage):
    with Lanes(stage.equipment.public, 1) as lanes:
        simulation = Simulation(SCENARIO, stage.world, stage.equipment, 0, cores=lanes)
        plan = replace(simulation.devices[0].plan, bundle=None)
        with pytest.raises(AttributeError):
            lanes.open(plan).logits(np.zeros((1, 64), np.float32))
