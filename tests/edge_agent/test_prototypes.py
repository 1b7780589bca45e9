"""FedProto on a device (Tan et al. 2022): what leaves it, and what it learns from everybody's prototypes."""

import numpy as np

from edge_agent.prototypes import nearest_class, prototypes_of, row_weights, rows_of
from fd_runtime.artifacts import load_bundle
from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.space import preprocessed
from tests.edge_agent.artifacts import CLASSES, TASK, clouds, write_bundle


def rows(count, seed, classes=range(CLASSES)):
    samples, labels = clouds(count, seed=seed)
    kept = np.isin(labels, list(classes))
    return LabelledRows(preprocessed(samples[kept], TASK), labels[kept], CLASSES)


def test_counts_are_told_as_powers_of_two_from_eleven_rows_on():
    assert row_weights(np.array([0, 10, 11, 21, 22, 43, 44, 100])).tolist() == [0, 0, 1, 1, 2, 2, 4, 8]


def test_a_prototype_is_the_mean_of_its_rows_and_few_rows_have_none():
    features = np.arange(60, dtype=np.uint8).reshape(20, 3)
    means, weights = prototypes_of(LabelledRows(features, np.repeat([0, 1], [12, 8]), 3))
    np.testing.assert_allclose(means[0], features[:12].mean(axis=0))
    assert weights.tolist() == [1, 0, 0]
    assert not means[1:].any()


def test_integer_features_are_met_on_their_grid():
    like = LabelledRows(np.zeros((1, 2), np.uint8), np.zeros(1, np.int64), 2)
    lesson = rows_of(np.array([[1.6, 254.7], [0, 0]], np.float32), np.array([3, 0]), like)
    assert lesson.features.dtype == np.uint8
    assert lesson.features.tolist() == [[2, 255]]
    assert lesson.targets.tolist() == [[1.0, 0.0]]


def test_a_device_learns_a_class_that_it_has_never_seen(tmp_path):
    write_bundle(tmp_path / "bundle")
    mine, elsewhere, fresh = rows(150, 1, classes=[0, 1]), rows(300, 2), rows(400, 3, classes=[2])
    prototypes, weights = prototypes_of(elsewhere)

    def accuracy(lesson):
        model = load_bundle(tmp_path / "bundle").open("numpy")
        fit(
            model.train_session,
            mine,
            lesson,
            FitTerms(30, learning_rate=2e-2, probe_weight=10),
            np.random.default_rng(0),
        )
        model.tail.load(model.train_session.state.theta)
        return (model.tail.logits(fresh.features).argmax(axis=1) == 2).mean()

    assert accuracy(None) < 0.2 < 0.8 < accuracy(rows_of(prototypes, weights, mine))
    assert (nearest_class(fresh.features, prototypes, weights) == 2).mean() > 0.8
