"""A device whose bundle has a clipping graph: three clouds of points, onnxruntime, a ledger in a folder."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np

from edge_agent.jobs import PredictJob, TrainJob, WarmUpJob
from edge_agent.learning.learned import private_path
from edge_agent.learning.seen import SeenProbes
from edge_agent.privacy.learner import Purse
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.private.data import PrivateRows
from edge_agent.round.events import Task, Work
from edge_agent.worker_core import WorkerCore
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, ConsensusBlock, PrivacyTerms, Slice, TrainingTerms
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.quantisation import QuantisationTerms
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.artifacts import CLASSES, TASK, clouds, write_public_set
from tests.edge_agent.builders import offer, round_id
from tests.support.once import once

PROBES = 60
TRAINING = TrainingTerms(epochs=4, learning_rate=5e-3, warm_up_epochs=20)
PRIVACY = PrivacyTerms(epsilon=8.0, steps=40, sampling_rate=0.5, learning_rate=3e-2, rows=300)
OWN = PrivacySettings()
NOW = 1_800_000_000.0
DAY = 86_400.0


def bundle_folder(version="1", *, private=True):
    """A bundle, for all tests of a run."""
    samples = clouds(40, seed=3)[0]
    recipe = Recipe(
        "clouds",
        "mlp-s",
        version=version,
        pretraining=None,
        private=private,
        tflite="none",
        quantisation=QuantisationTerms(method="none"),
    )
    data = FactoryData.unlabelled(samples)
    return once(f"private bundle {recipe}", lambda folder: build(recipe, TASK, data, folder / "bundle")) / "bundle"


def rows_of(count=300, seed=9, classes=range(CLASSES)):
    samples, labels = clouds(count, seed=seed, classes=classes)
    return PrivateRows(samples, labels)


class PrivateDevice:
    """Its folder, and cores that start in it one after the other, as after crashes."""

    def __init__(self, folder, private=None, own=OWN, bundle=None):
        self.folder, self.own, self.now_s = folder, own, NOW
        self.bundle = load_bundle(bundle or bundle_folder())
        folder.mkdir(parents=True, exist_ok=True)
        public = folder / "public"
        self.public = load_public_set(public if public.exists() else write_public_set(public, PROBES))
        self.private = rows_of() if private is None else private
        self.checkpoint = folder / "checkpoint"

    @property
    def private_checkpoint(self):
        return private_path(self.checkpoint)

    @property
    def ledger(self):
        return Ledger(self.folder / "privacy")

    def core(self, *, problem="", has_rows=True, **options):
        model = self.bundle.open("onnxruntime")
        purse = Purse(self.ledger, self.own, self.bundle.open_private_step, problem, lambda: self.now_s)
        return WorkerCore(
            model,
            SeenProbes(self.public, model),
            self.private,
            self.checkpoint,
            device="dev-1",
            purse=purse if has_rows else None,
            **options,
        )

    def copy(self, folder, private=None):
        """The same state in another folder, perhaps beside other rows."""
        other = PrivateDevice(folder, private or self.private, self.own)
        for name in ("checkpoint", "checkpoint-private", "checkpoint-private.progress"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, folder / name)
        if (self.folder / "privacy").exists():
            shutil.copytree(self.folder / "privacy", folder / "privacy")
        return other

    # Jobs.

    def warm_up(self, privacy=PRIVACY, number=1):
        return WarmUpJob(Work(Task.WARM_UP, round_id(number)), TRAINING, privacy)

    def predict(self, privacy=PRIVACY, number=1):
        asked = offer(number, slice=Slice(self.public.digest, 0, PROBES, CLASSES), privacy=privacy)
        return PredictJob(Work(Task.PREDICT, round_id(number)), asked, privacy=privacy)

    def train(self, privacy=PRIVACY, number=1, labels=None, training=TRAINING):
        digest, messages = self.consensus(self.truth() if labels is None else labels, number)
        return TrainJob(Work(Task.TRAIN, round_id(number)), digest, messages, training, privacy=privacy)

    def consensus(self, labels, number=1, blocks=2):
        logits = np.eye(CLASSES, dtype=np.float32)[labels] * 6
        bounds = np.linspace(0, PROBES, blocks + 1).astype(int)
        bodies = [
            encode_body(quantise(SoftLabels.of(logits[start:stop], 2.0), Codec.U8_SQRT))
            for start, stop in pairwise(bounds)
        ]
        digest = sha256(b"".join(bodies))
        slices = [Slice(self.public.digest, int(start), int(stop - start), CLASSES) for start, stop in pairwise(bounds)]
        return digest, tuple(
            codec.encode(
                ConsensusBlock(round_id(number), digest, index, blocks, each, 2.0, Codec.U8_SQRT, bodies[index])
            )
            for index, each in enumerate(slices)
        )

    def truth(self):
        return self.public.probes().reshape(PROBES, CLASSES, 2).sum(axis=2).argmax(axis=1)

    def accuracy(self, core):
        samples, labels = clouds(500, seed=77)
        return (core.logits(preprocessed(samples, TASK)).argmax(axis=1) == labels).mean()
