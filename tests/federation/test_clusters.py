"""Two camps of real devices that call the same things by other names, under COMET, from the offer to the training."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.rules import RuleTerms
from broker_server.settings import MethodSettings
from edge_agent.jobs import TrainJob
from fd_protocol import codec
from fd_protocol.messages import ConsensusBlock
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import Samples, digits
from tests.federation.stage import Stage, run_on

DEVICES, CLASSES = 8, 10
COMET = MethodSettings("comet", terms=RuleTerms(clusters=2, cluster_least=3))
SCENARIO = replace(PRESETS["digits"], devices=DEVICES, rounds=5, method=COMET)


def renamed(samples):
    """The second camp calls every digit the next."""
    return Samples(samples.values, (samples.labels + 1) % CLASSES)


@pytest.fixture(scope="module")
def camps(tmp_path_factory):
    world = digits(0, devices=DEVICES, alpha=100.0)
    half = DEVICES // 2
    world = replace(world, private=(*world.private[:half], *map(renamed, world.private[half:])))
    return Stage(world, equip(world, SCENARIO.models, 0, tmp_path_factory.mktemp("camps")))


def accuracies(simulation, stage):
    """Each device's accuracy on test, by the names of its own camp."""
    told = []
    for device in simulation.devices:
        test = stage.world.test if device.number < DEVICES // 2 else renamed(stage.world.test)
        features = stage.lab.rows(device.profile.family, stage.world.test).features
        told.append((device.core.logits(features).argmax(axis=1) == test.labels).mean())
    return np.array(told)


def played(stage, scenario):
    simulation = Simulation(scenario, stage.world, stage.equipment, 0)
    run_on(simulation)
    return simulation


def test_each_camp_learns_from_its_own_where_the_mean_of_all_teaches_both_wrong(camps):
    comet = played(camps, SCENARIO)
    assert comet.server.aggregator.state.consensus.metrics["clusters"] == 2
    mean = played(camps, replace(SCENARIO, method=MethodSettings("mean-probabilities")))
    assert accuracies(comet, camps).min() > 0.75
    assert accuracies(comet, camps).mean() > accuracies(mean, camps).mean() + 0.05


def test_an_old_agent_in_the_fleet_learns_what_all_say_and_the_others_their_own(camps):
    simulation = Simulation(SCENARIO, camps.world, camps.equipment, 0)
    old = simulation.devices[0]
    old.crash()
    old.tamper = before_there_were_clusters
    old.start()
    run_on(simulation)
    assert simulation.server.aggregator.state.consensus.metrics["clusters"] == 2
    assert len(old.agent.state.taken) == SCENARIO.rounds
    assert old.agent.state.report is None, "it trained on each of them"
    assert accuracies(simulation, camps)[1:].min() > 0.75


def before_there_were_clusters(handle):
    """A worker that ignores the keys of clusters, as it ignores all that it does not know."""

    def handled(job):
        if isinstance(job, TrainJob):
            blocks = [codec.decode(message, ConsensusBlock) for message in job.messages]
            assert all(block.clusters for block in blocks)
            stripped = (codec.encode(replace(block, clusters=(), clusters_sha256=b"")) for block in blocks)
            job = replace(job, messages=tuple(stripped))
        answer = handle(job)
        assert getattr(answer.event, "accepted", True)
        return answer

    return handled


def test_a_device_that_was_away_finds_its_cluster_after_one_connect(camps):
    simulation = Simulation(SCENARIO, camps.world, camps.equipment, 0)
    *present, absent = simulation.devices
    play = simulation.run()
    next(play)
    simulation.settle()
    absent.crash()
    simulation.server.crash()
    rounds = replace(simulation.server.settings.rounds, minimum_online=DEVICES - 1)
    simulation.server.settings = replace(simulation.server.settings, rounds=rounds)
    simulation.server.start()
    simulation.devices = present
    while next(play).number < SCENARIO.rounds:
        pass
    simulation.settle()
    absent.start()
    simulation.devices = [*present, absent]
    simulation.settle()
    assert absent.agent.state.taken[-1] == simulation.server.aggregator.state.consensus.sha256
    assert accuracies(simulation, camps)[-1] > 0.75, "what all say would have taught it half of what the others mean"
