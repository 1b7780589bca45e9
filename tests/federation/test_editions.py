"""A public set takes the place of another, with real devices: a trial beside the old set, then the switch."""

from dataclasses import replace

import pytest

from broker_server.core.events import Command, Edition
from broker_server.edition_views import views
from broker_server.kits import Kit
from broker_server.orders import Spool, new_order, place_order
from broker_server.records.chronicle import Chronicle
from broker_server.settings import ProbeSet
from broker_server.student import Student
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.messages import ConsensusBlock, ProbeNotice
from fd_protocol.topics import Topics
from fd_runtime.artifacts import load_public_set
from fd_runtime.space import preprocessed
from fleet_sim.federation.shared_models import SharedModels
from fleet_sim.federation.simulation import FEDERATION
from model_export.public_set import build_public_set
from tests.federation.stage import DEVICES, SCENARIO

ROUNDS, NEW = 8, 200


class Scene:
    """A federation on digits, and 200 of the test's digits as a set that comes later; half of them are canaries."""

    def __init__(self, stage, folder, lacking=()):
        world, equipment = stage.world, stage.equipment
        built = build_public_set(folder / "new", world.test.values[:NEW], equipment.task, seed=4)
        self.public, labels = load_public_set(folder / "new"), world.test.labels[:NEW][built.order]
        self.canaries = LabelledProbes(tuple(range(0, NEW, 2)), tuple(labels[::2].tolist()))
        bundle = equipment.bundles[SCENARIO.models.student]
        inputs = preprocessed(self.public.probes(), equipment.task)
        student = Student(bundle.open("onnxruntime"), bundle.digest, inputs, SCENARIO.student, self.canaries)
        probes = ProbeSet(self.public.digest, NEW, len(equipment.task.classes), equipment.task.digest, 1)
        self.kit = Kit(probes, self.canaries, student)
        simulation = self.simulation = stage.simulation(replace(SCENARIO, rounds=ROUNDS))
        simulation._cores = SharedModels(equipment.public, self.public)
        for device in simulation.devices:
            device.crash()
            device.cores = simulation._cores
            if device.number not in lacking:
                device.profile = replace(device.profile, further={self.public.digest: NEW})
            device.start()
        server = self.server = simulation.server
        server.crash()
        server.spool, server.make_kit = Spool(folder / "orders"), self.make_kit
        server.start()
        self.play = simulation.run()

    def make_kit(self, edition: Edition) -> Kit:
        assert edition.public_set == self.public.digest
        return self.kit

    def order(self, command, **arguments):
        given = new_order(command.value, who="ada", at_ms=1, arguments=arguments)
        place_order(self.server.spool.folder, given)
        self.simulation.settle()
        answer = self.server.aggregator.state.answer_to(given.id)
        assert answer.is_obeyed, answer.outcome
        return answer.outcome

    def stage(self):
        said = {"public_set": self.public.digest.hex(), "count": str(NEW), "size_bytes": "1", "canaries": "ab" * 32}
        return self.order(Command.PROBES_STAGE, **said)

    def trial(self):
        """Let a trial end, whatever rounds on the current set end before."""
        self.order(Command.PROBES_TRIAL)
        while self.state.editions.trial is None:
            self.simulation.settle()
            self.simulation.advance()
        self.simulation.settle()

    @property
    def state(self):
        return self.server.aggregator.state


@pytest.fixture
def scene(stage, tmp_path):
    return Scene(stage, tmp_path)


def test_a_fleet_goes_over_to_a_new_set_after_a_trial(scene):
    first = next(scene.play)
    scene.stage()
    notice = codec.decode(scene.simulation.broker.retained[Topics(FEDERATION).probes], ProbeNotice)
    assert notice.coming[0].public_set == scene.public.digest
    before = {device.id: device.agent.state.taken for device in scene.simulation.devices}
    old_consensus = scene.state.consensus
    scene.trial()
    assert scene.state.consensus == old_consensus
    assert {device.id: device.agent.state.taken for device in scene.simulation.devices} == before, "nobody learnt of it"
    old, new = views(scene.state, Chronicle(scene.server.store, FEDERATION))
    assert (new.have, new.metrics["voices"]) == (DEVICES, DEVICES)
    assert 0 <= new.metrics["uncovered_probes"] < 0.3
    assert new.metrics["canary_accuracy"] > 0.5
    assert old.metrics["voices"] == DEVICES
    scene.order(Command.PROBES_SWITCH)
    *_, last = scene.play
    scene.simulation.settle()
    consensus = scene.state.consensus
    block = codec.decode(scene.simulation.broker.retained[Topics(FEDERATION).consensus(0)], ConsensusBlock)
    assert (block.slice.public_set, block.slice.count) == (scene.public.digest, NEW)
    for device in scene.simulation.devices:
        assert device.agent.state.taken[-1] == consensus.sha256
        assert {base.slice.public_set for base in device.agent.state.bases} == {
            scene.public.digest,
            device.profile.public_set,
        }
    assert last.number == ROUNDS
    assert last.clients > first.clients
    assert scene.state.student.round == consensus.round


def test_devices_without_the_new_set_go_on_with_the_old_one_and_are_not_waited_for(stage, tmp_path):
    scene = Scene(stage, tmp_path, lacking=(3,))
    next(scene.play)
    scene.stage()
    scene.trial()
    assert scene.state.editions.trial.metrics["voices"] == DEVICES - 1
    next(scene.play)
    assert scene.state.consensus.metrics["voices"] == DEVICES, "on the current set all speak"
    assert "1 devices online do not have it" in scene.order(Command.PROBES_SWITCH)
    *_, _last = scene.play
    scene.simulation.settle()
    lacking = scene.simulation.devices[3]
    assert lacking.agent.state.objection == "unknown_public_set"
    assert lacking.agent.state.named_sets == (scene.public.digest,)
    assert scene.state.consensus.metrics["voices"] == DEVICES - 1
