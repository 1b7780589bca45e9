"""A federation without a public set: the real server and real agents, FD per label from the offer to the training."""

from dataclasses import replace

import numpy as np

from broker_server.settings import MethodSettings, ProbeSet, RoundSettings, Settings
from edge_agent.jobs import PredictJob, TrainJob
from edge_agent.learning.label_ground import standing_of
from edge_agent.private.data import PrivateRows
from edge_agent.round.eligibility import Profile
from fd_protocol import codec
from fd_protocol.competence import FAR
from fd_protocol.label_set import VOICE_ONE, label_set
from fd_protocol.messages import ConsensusBlock, Contribution
from fd_protocol.payload import Codes, decode_body
from fd_protocol.topics import Topics
from fleet_sim.bus.bus import InMemoryBroker
from fleet_sim.federation.cores import CorePlan
from fleet_sim.federation.parties import Clock, Device, Server
from tests.federation.stage import DEVICES, SCENARIO
from tests.support.own_models import OwnModels

FEDERATION = "labels"
ROUNDS = 2


class Federation:
    """Four devices of three families on digits, two rounds, and every job that a device was given."""

    def __init__(self, stage):
        task, rng = stage.world.task, np.random.default_rng(0)
        self.classes = len(task.classes)
        probes = ProbeSet(label_set(task.digest), self.classes, self.classes, task.digest)
        rounds = RoundSettings(quorum=1, pause_s=1.0, minimum_online=DEVICES, count=ROUNDS)
        settings = Settings(FEDERATION, rounds=rounds, method=MethodSettings("per-label"))
        self.clock, self.jobs = Clock(), []
        self.broker = InMemoryBroker(rng, now_s=self.clock.now_s)
        self.server = Server(settings, self.broker, self.clock, probes, rng.bytes)
        self.devices = [self.device(stage, number, probes) for number in range(DEVICES)]

    def device(self, stage, number, probes):
        family = SCENARIO.models.families[number % len(SCENARIO.models.families)]
        bundle, rows = stage.equipment.bundles[family], stage.world.private[number]
        name = f"device-{number}"
        profile = Profile(
            name, FEDERATION, probes.task, self.classes, bundle.digest, family, "onnxruntime",
            probes.public_set, probes.count,
        )  # fmt: skip
        plan = CorePlan(name, bundle, PrivateRows(rows.values, rows.labels))
        return Device(number, profile, self.broker, self.clock, OwnModels(None), plan, self.listen(name))

    def listen(self, name):
        def tamper(handle):
            def heard(job):
                answer = handle(job)
                self.jobs.append((name, job, answer))
                return answer

            return heard

        return tamper

    def run(self):
        while not self.server.aggregator.is_complete or any(device.agent.state.report for device in self.devices):
            while any([self.broker.turn(), *(d.pump() for d in self.devices), self.server.aggregator.pump(0.0)]):
                pass
            self.clock.now_ms += 1000
        return self

    def jobs_of(self, kind):
        return [(name, job, answer) for name, job, answer in self.jobs if isinstance(job, kind)]

    def said(self, number):
        """What each device said in a round: name -> probabilities [labels, classes]."""
        said = {}
        for name, job, answer in self.jobs_of(PredictJob):
            message = codec.decode(answer.blobs[2], Contribution)
            if job.offer.round.number == number:
                codes = decode_body(message.body, message.codec, self.classes, self.classes)
                said[name] = codes.probabilities()
        return said


def test_rounds_run_on_labels_alone_and_every_device_learns_from_the_others(stage):
    federation = Federation(stage).run()
    block = codec.decode(federation.broker.retained[Topics(FEDERATION).consensus(0)], ConsensusBlock)
    speaks = np.stack([standing_of(counts) < FAR for counts in training_counts(stage)])
    assert block.round.number == ROUNDS
    assert list(block.voices) == (VOICE_ONE * speaks.sum(axis=0)).tolist()
    said = federation.said(ROUNDS)
    assert len(said) == DEVICES
    tables = np.stack([said[f"device-{number}"] for number in range(DEVICES)])
    mean = (speaks[:, :, None] * tables).sum(axis=0) / np.maximum(1, speaks.sum(axis=0))[:, None]
    heard = decode_body(block.body, block.codec, block.slice.count, block.slice.classes).probabilities()
    np.testing.assert_allclose(heard[speaks.any(axis=0)], mean[speaks.any(axis=0)], atol=0.01)
    trainings = federation.jobs_of(TrainJob)
    assert len(trainings) == DEVICES * ROUNDS
    for name, job, answer in trainings:
        own = Codes.from_bytes(job.own).probabilities()
        np.testing.assert_array_equal(own, federation.said(job.work.round.number)[name])
        assert answer.event.accepted


def training_counts(stage):
    """Rows of each label that a device trains on, the hold-out left out."""
    for rows in stage.world.private:
        private = PrivateRows(rows.values, rows.labels)
        yield np.bincount(private.labels[private.split()[0]], minlength=len(stage.world.task.classes))


def test_an_agent_with_a_public_set_does_not_take_part(stage):
    federation = Federation(stage)
    profile = replace(federation.devices[0].profile, public_set=stage.equipment.public.digest)
    federation.devices[0].profile = profile
    federation.devices[0].start()
    federation.run()
    assert set(federation.said(1)) == {f"device-{number}" for number in range(1, DEVICES)}
