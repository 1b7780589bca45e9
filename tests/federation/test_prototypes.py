"""A federation of class prototypes: the real server, agents and int8 backbones, from the offer to the training."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.settings import MethodSettings
from edge_agent.round.participant import Phase
from fd_protocol import codec
from fd_protocol.label_set import MIN_LABEL_ROWS, label_set
from fd_protocol.messages import ConsensusBlock, Kind
from fd_protocol.payload import decode_body
from fd_protocol.prototypes import FULL, ON, STATES, UNKNOWN, PrototypeSpace
from fd_protocol.topics import Topics
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import FEDERATION, Simulation
from fleet_sim.partitions import Classes, PartitionTerms
from fleet_sim.scenario import PRESETS, ModelTerms
from fleet_sim.worlds import Cut, Samples
from tests.federation.stage import Stage, run_on, voices

DEVICES = 5
SCENARIO = replace(
    PRESETS["digits"],
    devices=DEVICES,
    cut=Cut(factory=100, probes=200, test=400),
    partition=PartitionTerms(classes=Classes(per_device=4)),
    models=ModelTerms(("tab-s",), "tab-s"),
    rounds=2,
    method=MethodSettings("prototypes"),
    training=replace(PRESETS["digits"].training, epochs=16),
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    world = SCENARIO.world(0)
    return Stage(world, equip(world, SCENARIO.models, 0, tmp_path_factory.mktemp("prototypes")))


@pytest.fixture
def simulation(stage):
    return Simulation(SCENARIO, stage.world, stage.equipment, 0)


def training_rows(device):
    is_trained, _ = device.plan.private.split()
    return Samples(device.plan.private.samples[is_trained], device.plan.private.labels[is_trained])


def test_devices_learn_classes_that_they_do_not_have_from_the_mean_features_of_those_who_do(stage, simulation):
    space = PrototypeSpace.of(stage.equipment.bundles["tab-s"].manifest)
    run_on(simulation)
    block = codec.decode(simulation.broker.retained[Topics(FEDERATION).consensus(0)], ConsensusBlock)
    assert (block.slice.public_set, block.voices) == (space.digest, ())
    told = decode_body(block.body, block.codec, space.count, STATES).probabilities()
    told = told.reshape(space.classes, space.width, STATES)
    sums, speakers = np.zeros((10, space.width)), np.zeros(10)
    for device in simulation.devices:
        rows = training_rows(device)
        features = stage.lab.rows("tab-s", rows).features
        for label in np.flatnonzero(np.bincount(rows.labels, minlength=10) >= MIN_LABEL_ROWS):
            sums[label] += features[rows.labels == label].mean(axis=0)
            speakers[label] += 1
    known = speakers > 0
    assert known.any()
    np.testing.assert_allclose(FULL * told[known, :, ON], sums[known] / speakers[known, None], atol=2.0)
    assert (told[~known, :, UNKNOWN] == 1).all()
    test = stage.lab.rows("tab-s", stage.world.test)
    for device in simulation.devices:
        foreign = ~np.isin(test.labels, training_rows(device).labels)
        is_right = device.core.logits(test.features).argmax(axis=1) == test.labels
        assert is_right[foreign].mean() > 0.5, "it has no row of these classes"


def test_a_fleet_at_rest_sends_next_to_nothing_and_learns_nothing_twice(stage, simulation):
    features = stage.lab.rows("tab-s", stage.world.test).features
    play = simulation.run()
    first = next(play)
    simulation.settle()
    sent = [simulation.broker.sent_bytes[device.id] for device in simulation.devices]
    learned = [device.core.logits(features) for device in simulation.devices]
    second = next(play)
    simulation.settle()
    assert first.consensus_sha256 == second.consensus_sha256
    again = [simulation.broker.sent_bytes[device.id] for device in simulation.devices]
    assert all(after - before < 500 for before, after in zip(sent, again, strict=True)), "a report, and no difference"
    for device, before in zip(simulation.devices, learned, strict=True):
        assert device.agent.state.taken_round == device.agent.state.offer.round
        np.testing.assert_array_equal(device.core.logits(features), before)


@pytest.mark.parametrize("why", ["another backbone", "its owner has not allowed it"])
def test_a_device_that_tells_no_such_prototypes_takes_no_part_and_breaks_nothing(stage, simulation, why):
    foreign, task = simulation.devices[0], stage.world.task
    foreign.crash()
    if why == "another backbone":
        foreign.plan = replace(foreign.plan, space=replace(foreign.plan.space, digest=bytes(32)))
        foreign.profile = replace(foreign.profile, public_set=bytes(32))
    else:  # then it is asked about labels, see `edge_agent.equipment`
        foreign.plan = replace(foreign.plan, space=None)
        foreign.profile = replace(foreign.profile, public_set=label_set(task.digest), probes=10, classes=10)
    simulation.server.crash()
    rounds = replace(simulation.server.settings.rounds, duration_s=60)
    simulation.server.settings = replace(simulation.server.settings, rounds=rounds)
    simulation.server.start()
    foreign.start()
    run_on(simulation)
    assert voices(simulation) == DEVICES - 1
    assert foreign.agent.state.objection in ("unknown_public_set", "foreign_task")
    assert foreign.agent.state.phase is Phase.IDLE
    rows = simulation.server.store.payloads(FEDERATION, Kind.CONTRIBUTION.value)
    assert {row.device for row in rows} == {device.id for device in simulation.devices[1:]}
