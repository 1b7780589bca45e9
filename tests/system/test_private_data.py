"""Nothing that a device keeps is in anything that it says: every byte of full rounds is searched for it."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.private.data import PrivateRows
from edge_agent.private.settings import GuessSettings, StoreSettings
from edge_agent.private.store import PrivateStore
from fd_protocol import codec
from fd_protocol.competence import FAR, decode_map
from fd_protocol.identity import sha256
from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.messages import Codec, CompetenceMap, ConsensusBlock, Contribution, Kind, Slice
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.links.link import LinkSettings, Published
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.builders import round_id
from tests.edge_agent.processes import TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import needs_mosquitto, next_event, plain_mosquitto
from tests.support.leaks import Secrets
from tests.support.proxy import Recorder

pytestmark = [pytest.mark.system, needs_mosquitto]

CLASSES = 8
TASK = Task(tuple("abcdefgh"), (1, 12, 12), "uint8", Preprocessing(1 / 255))
STORE = StoreSettings(megabytes=8, rows=400, questions=20, awaiting=20, guesses=GuessSettings(0.9))
STORE_TEXT = """
[store]
megabytes = 8
rows = 400
questions = 20
awaiting = 20
[store.guesses]
confidence = 0.9
"""


def pictures(count, seed):
    """Noise, a row of it brighter for each class: no 8 bytes are twice the same by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    samples = rng.integers(0, 120, (count, 1, 12, 12), dtype=np.uint8)
    samples[np.arange(count), 0, labels] += 130
    return samples, labels


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A folder with bundle and public set."""
    folder = tmp_path_factory.mktemp("factory")
    public, _ = pictures(160, seed=1)
    nothing = FactoryData(public[:0], np.zeros(0, np.int64), calibration=public)
    build(Recipe("pictures", "cnn-s", pretraining=None, tflite="none"), TASK, nothing, folder / "bundle")
    build_public_set(folder / "public", public, TASK, seed=0)
    return folder


class Stage:
    """A device behind a recorder, with a server whose every word the test decides."""

    def __init__(self, folder, factory, *, file_rows, stored_rows):
        self.broker = plain_mosquitto(folder).start()
        self.recorder = Recorder(self.broker.port)
        text = settings_text(self.recorder.port, model__runtime="onnxruntime")
        if not file_rows:
            text = text.replace('private = "private.npz"', "")
        self.agent = AgentProcess(folder / "device", 0, settings=text + STORE_TEXT)
        for name in ("bundle", "public"):
            shutil.rmtree(self.agent.folder / name)
            shutil.copytree(factory / name, self.agent.folder / name)
        self.bundle = load_bundle(factory / "bundle")
        self.file = pictures(file_rows, seed=2)
        np.savez(self.agent.folder / "private.npz", x=self.file[0], y=self.file[1])
        self.stored = pictures(stored_rows, seed=3)
        self.epoch = self._fill()
        settings = LinkSettings("agg", port=self.broker.port, subscriptions=TOPICS.server_filters())
        self.server = ScriptedServer(settings, load_public_set(factory / "public"))
        self.server.slice = Slice(self.server.slice.public_set, 0, self.server.slice.count, CLASSES)

    def _fill(self):
        """Put rows of every kind into the store, as sources, people and the model do."""
        (self.agent.folder / "state").mkdir()
        store = PrivateStore.open(self.agent.folder / "state" / "private.db", STORE, self.bundle.manifest)
        for number, (sample, label) in enumerate(zip(*self.stored, strict=True)):
            kind = number % 8
            store.add(
                sample, sample_id=f"kitchen camera/{number}", label=int(label) if kind < 5 else None,
                confidence=(None, None, None, None, None, 0.95, 0.4, 0.6)[kind], guess=int(label),
                at_ms=1_800_000_000_000 + 120_000 * number, source="kitchen camera",
            )  # fmt: skip
        epoch = store.epoch
        store.close()
        return epoch

    def consensus(self, number):
        logits = np.eye(CLASSES, dtype=np.float32)[np.arange(self.server.slice.count) % CLASSES] * number
        body = encode_body(quantise(SoftLabels.of(logits, 2.0), Codec.U8_SQRT))
        block = ConsensusBlock(round_id(number), sha256(body), 0, 1, self.server.slice, 2.0, Codec.U8_SQRT, body)
        self.server.say(TOPICS.consensus(0), block, retain=True)

    def round(self, number):
        self.server.offer(number, task=TASK.digest, competence=True)
        self.server.receipt(self.server.contribution(number))
        self.consensus(number)
        report = self.server.report(number)
        assert report.accepted, report.reason

    def payloads(self, kind):
        """What came of that kind, joined from its parts."""
        digests = list(dict.fromkeys(part.payload_sha256 for part in self.server.parts if part.kind is kind))
        return [
            b"".join(part.body for part in sorted(
                {p.index: p for p in self.server.parts if p.payload_sha256 == digest}.values(), key=lambda p: p.index
            ))
            for digest in digests
        ]  # fmt: skip

    def secrets(self):
        found, model = Secrets(), self.bundle.open("onnxruntime")
        for samples, _ in (self.file, self.stored):
            for form in (samples, preprocessed(samples, TASK), model.features(preprocessed(samples, TASK))):
                for row in form:
                    found.add(row)
        for labels in self._orders_of_labels():
            found.add_labels(labels)
        found.add_text("kitchen camera")
        return found

    def _orders_of_labels(self):
        """Labels as they came, as they are kept, and the two sides of each."""
        store = PrivateStore.open(self.agent.folder / "state" / "private.db", STORE, self.bundle.manifest)
        yield self.stored[1]
        for rows in (PrivateRows(*self.file), store.rows()):
            yield rows.labels
            for mask in rows.split():
                yield rows.labels[mask]
        store.close()

    def close(self):
        self.agent.end()
        self.server.link.close()
        self.recorder.close()
        self.broker.stop()


@pytest.fixture
def stage(tmp_path, factory):
    stages = []

    def make(**rows):
        stages.append(Stage(tmp_path, factory, **rows))
        return stages[-1]

    yield make
    for one in stages:
        one.close()


def test_in_full_rounds_no_byte_of_a_sample_a_feature_or_labels_is_sent(stage, says):
    stage = stage(file_rows=120, stored_rows=160)
    stage.agent.start()
    for number in (1, 2, 3):
        stage.round(number)
    stage.agent.end()
    secrets = stage.secrets()
    said = b"".join(map(bytes, stage.recorder.streams))
    contributions, maps = stage.payloads(Kind.CONTRIBUTION), stage.payloads(Kind.COMPETENCE)
    assert len(contributions) == 3
    assert len(maps) == 1
    assert all(part.body in said for part in stage.server.parts)  # the recorder has heard what the server has
    assert len(secrets) > 100_000
    for payload in (said, *contributions, *maps):
        assert secrets.found_in(payload) is None
    bodies = [codec.decode(payload, Contribution).body for payload in contributions]
    assert all(len(zlib.decompress(body)) >= 160 * CLASSES // 2 for body in bodies)  # what was searched is all of it
    says(f"{len(secrets)} windows of private data searched for in {len(said)} bytes that a device sent: none found")


def leaks(stage):
    """Messages that a broken device might send, each with something private in it."""
    sample, label = stage.stored[0][7], stage.stored[1]
    model = stage.bundle.open("onnxruntime")
    features = model.features(preprocessed(sample[None], TASK))[0]
    contribution = Contribution(stage.server.slice, 2.0, Codec.U8_SQRT, b"body")
    yield "a sample", sample.tobytes()
    yield "eight bytes of a sample", b"report " + sample.tobytes()[40:48] + b" end"
    yield "a preprocessed sample", preprocessed(sample, TASK).tobytes()
    yield "features", codec.encode(replace(contribution, body=features.tobytes()))
    yield "a sample, deflated", codec.encode(replace(contribution, body=zlib.compress(sample.tobytes())))
    yield "labels", label[10:30].astype(np.int64).tobytes()
    yield "labels in a byte each, deflated", zlib.compress(label.astype(np.uint8).tobytes(), 9)
    yield "a name", b'{"source": "kitchen camera"}'


def test_a_device_that_leaked_would_be_found_out(stage):
    """The search itself: what is sent through the recorder on purpose is found."""
    stage = stage(file_rows=0, stored_rows=40)
    secrets = stage.secrets()
    for name, payload in leaks(stage):
        link = MqttLink(LinkSettings("leak", port=stage.recorder.port))
        link.publish("fd/v1/test/dev/dev-1/report", payload)
        next_event(link, Published)
        link.close()
        assert secrets.found_in(bytes(stage.recorder.streams[-1])) is not None, name
    assert secrets.found_in(codec.encode(Contribution(stage.server.slice, 2.0, Codec.U8_SQRT, bytes(500)))) is None


def test_a_device_learns_from_its_store_alone(stage):
    stage = stage(file_rows=0, stored_rows=160)
    stage.agent.start()
    stage.round(1)
    stage.agent.end()
    (payload,) = stage.payloads(Kind.COMPETENCE)
    message = codec.decode(payload, CompetenceMap)
    assert message.private_epoch == stage.epoch > 0
    assert (decode_map(message.body, message.count) < FAR).any()
    assert "loss" in stage.server.report(1).metrics
    assert stage.server.report(1).metrics["hold_out_accuracy"] >= 0


def test_a_restart_with_the_same_rows_maps_nothing_anew(stage):
    stage = stage(file_rows=60, stored_rows=160)
    for number in (1, 2):
        stage.agent.start()
        stage.round(number)
        stage.agent.end()
    assert len(stage.payloads(Kind.COMPETENCE)) == 1
