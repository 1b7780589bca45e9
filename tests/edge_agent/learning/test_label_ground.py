"""Without a public set: what a device says of each label, and learns of it (Jeong et al. 2018, algorithm 1)."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.jobs import CompetenceJob, PredictJob, TrainJob
from edge_agent.learning.label_ground import LabelGround, others, standing_of
from edge_agent.private.data import load_private_rows
from edge_agent.round.events import CompetenceMapped, Task, Work
from edge_agent.worker_core import WorkerCore
from fd_protocol import codec
from fd_protocol.competence import FAR, decode_map
from fd_protocol.errors import DecodeError
from fd_protocol.identity import sha256
from fd_protocol.label_set import MIN_LABEL_ROWS, VOICE_ONE, label_set
from fd_protocol.messages import Codec, CompetenceMap, ConsensusBlock, Contribution, Slice
from fd_protocol.payload import Codes, decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels, soften
from fd_runtime.artifacts import load_bundle
from fd_runtime.fitting import LabelledRows
from tests.edge_agent.artifacts import CLASSES, SIZE, TASK, write_bundle, write_private
from tests.edge_agent.builders import offer, round_id

LABELS = Slice(label_set(TASK.digest), 0, CLASSES, CLASSES)
COUNTS = [MIN_LABEL_ROWS, MIN_LABEL_ROWS - 1, 40]
"""Enough rows of two labels, one too few of another."""


def ground_of(counts):
    labels = np.repeat(np.arange(CLASSES), counts)
    features = np.random.default_rng(0).normal(size=(len(labels), SIZE)).astype(np.float32)
    return LabelGround(TASK.digest, LabelledRows(features, labels, CLASSES)), features, labels


def logits(features):
    return features[:, :CLASSES] * 3


def block_of(rows, voices=(), start=0):
    codes = quantise(SoftLabels(np.array(rows, np.float32), 2.0), Codec.F16)
    body = encode_body(codes)
    part = Slice(LABELS.public_set, start, len(rows), CLASSES)
    return ConsensusBlock(round_id(), sha256(body), 0, 1, part, 2.0, Codec.F16, body, tuple(voices))


def codes_of(rows):
    return quantise(SoftLabels(np.array(rows, np.float32), 2.0), Codec.F16)


def test_a_label_is_spoken_of_from_eleven_rows_on():
    assert standing_of(np.array([0, 10, 11, 1000])).tolist() == [FAR, FAR, 0, 0]
    assert ground_of(COUNTS)[0].standing().tolist() == [0, FAR, 0]


def test_what_is_said_of_a_label_is_the_mean_of_its_rows_and_nothing_of_few_rows():
    ground, features, labels = ground_of(COUNTS)
    said = ground.labels(logits, LABELS, 2.0).probabilities
    for label in (0, 2):
        expected = soften(logits(features[labels == label]), 2.0).mean(axis=0)
        np.testing.assert_allclose(said[label], expected, atol=1e-6)
    np.testing.assert_allclose(said[1], 1 / CLASSES)


def test_a_device_without_rows_says_nothing_and_learns_nothing():
    ground, *_ = ground_of([0, 0, 0])
    np.testing.assert_allclose(ground.labels(logits, LABELS, 2.0).probabilities, 1 / CLASSES)
    assert not len(ground.lesson(logits, [block_of(np.eye(CLASSES), [VOICE_ONE] * 3)], None).targets)


def test_a_slice_of_other_probes_is_refused():
    ground, *_ = ground_of(COUNTS)
    with pytest.raises(DecodeError, match="unknown_public_set"):
        ground.labels(logits, replace(LABELS, public_set=sha256(b"other")), 2.0)


def test_the_target_of_a_device_is_the_mean_of_the_others():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), (5, 6))  # devices, labels
    mean = p.mean(axis=0).astype(np.float32)
    all_speak, one = np.full(6, 5 * VOICE_ONE), np.full(6, VOICE_ONE)
    for device in range(5):
        expected = np.delete(p, device, axis=0).mean(axis=0)
        np.testing.assert_allclose(others(mean, all_speak, p[device].astype(np.float32), one), expected, atol=1e-5)


def test_a_device_that_did_not_speak_takes_nothing_out():
    mean = np.array([[0.7, 0.3]], np.float32)
    heard = others(mean, np.array([2 * VOICE_ONE]), np.array([[0.1, 0.9]], np.float32), np.array([0]))
    np.testing.assert_allclose(heard, mean, atol=1e-6)


def test_what_rounding_leaves_of_a_devices_own_words_is_no_target():
    consensus, own = np.array([[0.71, 0.29]], np.float32), np.array([[0.7, 0.3]], np.float32)
    alone = np.array([VOICE_ONE])
    assert not others(consensus, alone, own, alone).any()


def test_of_a_label_that_nobody_else_has_nothing_is_learned():
    rows = [[0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.1, 0.8]]
    ground, features, labels = ground_of(COUNTS)
    lesson = ground.lesson(logits, [block_of(rows, [VOICE_ONE, 0, 3 * VOICE_ONE])], codes_of(rows))
    np.testing.assert_array_equal(lesson.features, features[labels == 2])
    np.testing.assert_allclose(lesson.targets, np.tile(rows[2], (40, 1)), atol=2e-3)


def test_few_rows_of_a_label_learn_from_others_what_they_could_not_say():
    ground, features, labels = ground_of(COUNTS)
    lesson = ground.lesson(logits, [block_of([[0.2, 0.6, 0.2]], [VOICE_ONE], start=1)], None)
    np.testing.assert_array_equal(lesson.features, features[labels == 1])


# The same through jobs and messages.


@pytest.fixture
def core(tmp_path):
    write_bundle(tmp_path / "bundle")
    private = load_private_rows(write_private(tmp_path / "x.npz", 120, range(CLASSES)), (SIZE,), CLASSES)
    return WorkerCore(load_bundle(tmp_path / "bundle").open("numpy"), None, private, None, device="dev-1")


def test_a_core_without_a_public_set_answers_every_job(core):
    asked = offer(slice=LABELS)
    mapped = core.handle(CompetenceJob(Work(Task.MAP_COMPETENCE, round_id()), 2, label_set(TASK.digest)))
    message = codec.decode(mapped.blobs[0], CompetenceMap)
    assert mapped.event == CompetenceMapped(LABELS.public_set, 2, sha256(mapped.blobs[0]))
    assert decode_map(message.body, CLASSES).tolist() == [0] * CLASSES
    payload, stored, _ = core.handle(PredictJob(Work(Task.PREDICT, round_id()), asked)).blobs
    contribution = codec.decode(payload, Contribution)
    assert contribution.slice == LABELS
    own = decode_body(contribution.body, contribution.codec, CLASSES, CLASSES)
    np.testing.assert_array_equal(own.array, Codes.from_bytes(stored).array)
    block = block_of(np.eye(CLASSES) * 0.7 + 0.1, [3 * VOICE_ONE] * CLASSES)
    work = Work(Task.TRAIN, round_id())
    trained = core.handle(TrainJob(work, block.consensus_sha256, (codec.encode(block),), asked.training, stored)).event
    assert trained.accepted
