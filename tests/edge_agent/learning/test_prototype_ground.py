"""FedProto on a device (Tan et al. 2022): what leaves it, and what it learns from everybody's prototypes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_agent.learning.prototype_ground import PrototypeGround
from fd_protocol.competence import FAR
from fd_protocol.errors import DecodeError
from fd_protocol.identity import sha256
from fd_protocol.label_set import SPEAKS
from fd_protocol.messages import Codec, ConsensusBlock, Slice
from fd_protocol.payload import encode_body, quantise
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.fitting import LabelledRows
from tests.edge_agent.builders import round_id

CLASSES, SHAPE, WIDTH = 3, (2, 3), 6
SPACE = PrototypeSpace(sha256(b"space"), CLASSES, WIDTH)
WHOLE = Slice(SPACE.digest, 0, SPACE.count, STATES)
COUNTS = [11, 10, 40]
"""Enough rows of two classes, one too few of another."""


def ground_of(counts=COUNTS):
    labels = np.repeat(np.arange(CLASSES), counts)
    features = np.random.default_rng(0).integers(0, 256, (len(labels), *SHAPE)).astype(np.uint8)
    return PrototypeGround(SPACE, LabelledRows(features, labels, CLASSES)), features, labels


def no_model(_):
    pytest.fail("no model is asked")


def blocks_of(prototypes, blocks=1, digest=SPACE.digest):
    """Prototypes 0..255 [classes, width], None = unknown, as the blocks of a consensus."""
    rows = [[p / 255, 1 - p / 255, 0.0] for one in prototypes for p in (one if one is not None else ())]
    known = iter(rows)
    told = [next(known) if one is not None else [0.0, 0.0, 1.0] for one in prototypes for _ in range(WIDTH)]
    bounds = np.linspace(0, len(told), blocks + 1).astype(int)
    bodies = [
        encode_body(quantise(SoftLabels(np.array(told[a:b], np.float32), 2.0), Codec.F16)) for a, b in pairwise(bounds)
    ]
    return [
        ConsensusBlock(
            round_id(), sha256(b"".join(bodies)), k, blocks,
            Slice(digest, int(bounds[k]), int(bounds[k + 1] - bounds[k]), STATES), 2.0, Codec.F16, body,
        )
        for k, body in enumerate(bodies)
    ]  # fmt: skip


def test_what_is_told_of_a_class_is_the_mean_of_its_rows_and_nothing_of_few_rows():
    ground, features, labels = ground_of()
    told = ground.labels(no_model, WHOLE, 2.0).probabilities.reshape(CLASSES, WIDTH, STATES)
    for label in (0, 2):
        mean = features[labels == label].reshape(-1, WIDTH).mean(axis=0) / 255
        np.testing.assert_allclose(told[label, :, 0], mean, atol=1e-6)
        assert not told[label, :, 2].any()
    assert (told[1] == [0, 0, 1]).all(), "ten rows would nearly tell one"
    assert ground.standing().reshape(CLASSES, WIDTH)[:, 0].tolist() == [SPEAKS, FAR, SPEAKS]


def test_a_part_of_the_features_is_told_as_it_is_asked_for():
    ground, *_ = ground_of()
    whole = ground.labels(no_model, WHOLE, 2.0).probabilities
    part = ground.labels(no_model, replace(WHOLE, start=4, count=5), 2.0).probabilities
    assert np.array_equal(part, whole[4:9])


@pytest.mark.parametrize("blocks", [1, 4])
def test_prototypes_are_learned_as_rows_of_their_class_on_the_backbones_grid(blocks):
    ground, *_ = ground_of()
    prototypes = [np.arange(6) * 50.0, None, np.full(6, 1.6)]
    lesson = ground.lesson(no_model, blocks_of(prototypes, blocks), None)
    assert lesson.features.dtype == np.uint8
    assert lesson.features.shape[1:] == SHAPE
    told = {tuple(row.ravel()): target.argmax() for row, target in zip(lesson.features, lesson.targets, strict=True)}
    assert told == {(0, 50, 100, 150, 200, 250): 0, (2, 2, 2, 2, 2, 2): 2}
    np.testing.assert_array_equal(np.unique(lesson.targets), [0, 1])


@pytest.mark.parametrize(("rows", "copies"), [(61, 1), (640, 10), (0, 1)])
def test_prototypes_come_into_every_batch_and_count_as_much_as_the_rows_of_the_device(rows, copies):
    ground, *_ = ground_of([rows, 0, 0])
    lesson = ground.lesson(no_model, blocks_of([np.zeros(6), np.ones(6), np.ones(6) * 9]), None)
    assert len(lesson.targets) == 3 * copies
    assert lesson.weight.sum() == pytest.approx(max(1, rows))


def test_where_nobody_speaks_of_anything_there_is_nothing_to_learn():
    ground, *_ = ground_of()
    assert not len(ground.lesson(no_model, blocks_of([None, None, None]), None).targets)


def test_prototypes_of_another_backbone_or_not_all_of_them_are_refused():
    ground, *_ = ground_of()
    table = [np.zeros(6)] * 3
    with pytest.raises(DecodeError, match="no features"):
        ground.lesson(no_model, blocks_of(table, digest=sha256(b"another")), None)
    with pytest.raises(DecodeError, match="12 of 18 features"):
        ground.lesson(no_model, blocks_of(table, 3)[:2], None)
    with pytest.raises(DecodeError, match="no features"):
        ground.labels(no_model, replace(WHOLE, count=SPACE.count + 1), 2.0)
