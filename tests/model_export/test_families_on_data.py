"""Every family learns what it is made for: real data, seconds of it, every layer by the train step of the devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fd_runtime.fitting import LabelledRows
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.pretrain import PretrainTerms, pretrain
from tests.support import real_data
from tests.support.real_data import Split

VOCABULARY = 1000


def accuracy(forward: ForwardModel, samples: np.ndarray, labels: np.ndarray) -> float:
    graph = OnnxGraph(forward.model.SerializeToString())
    batches = [graph.run({"input": samples[at : at + 500]})["logits"] for at in range(0, len(samples), 500)]
    return float((np.concatenate(batches).argmax(axis=1) == labels).mean())


def learned(name: str, data: Split, terms: PretrainTerms, *, classes: int, vocabulary: int | None = None) -> float:
    """Return the accuracy on the test rows of a family that was trained on the others."""
    fresh = build_family(name, data.samples.shape[1:], classes, seed=0, vocabulary=vocabulary)
    rows = LabelledRows(data.samples, data.labels, classes)
    return accuracy(pretrain(fresh, rows, terms, np.random.default_rng(0)), data.test_samples, data.test_labels)


def of_logistic_regression(data: Split) -> float:
    linear = pytest.importorskip("sklearn.linear_model").LogisticRegression(max_iter=300, C=0.01)
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    flat, test = (samples.reshape(len(samples), -1) for samples in (data.samples, data.test_samples))
    linear.fit(scaler.fit_transform(flat), data.labels)
    return float(linear.score(scaler.transform(test), data.test_labels))


def test_a_depthwise_family_reads_small_digits() -> None:
    terms = PretrainTerms(epochs=6, batch_rows=32, learning_rate=5e-3)
    assert learned("dw-m", real_data.digits(), terms, classes=10) > 0.93


def test_a_depthwise_family_reads_mnist() -> None:
    terms = PretrainTerms(epochs=5, batch_rows=32, learning_rate=5e-3)
    assert learned("dw-s", real_data.mnist(), terms, classes=10) > 0.93


def test_a_sensor_family_knows_what_people_do_whom_it_never_met() -> None:
    data, terms = real_data.motion_sense(), PretrainTerms(epochs=5, learning_rate=4e-3)
    assert learned("conv1d-s", data, terms, classes=6) > max(0.85, of_logistic_regression(data) + 0.15)


def test_a_tabular_family_bears_columns_of_any_unit() -> None:
    assert learned("tab-s", real_data.breast_cancer(), PretrainTerms(epochs=15), classes=2) > 0.95


def test_a_tabular_family_learns_from_rows_with_missing_values() -> None:
    data = real_data.heart_disease()
    assert np.isnan(data.samples).any(axis=1).mean() > 0.5
    assert learned("tab-s", data, PretrainTerms(epochs=6), classes=2) > 0.75


@pytest.mark.parametrize("name", ["gru-s", "causal-s"])
def test_a_text_family_guesses_better_than_the_most_frequent_word(name: str) -> None:
    data = real_data.shakespeare(VOCABULARY, length=8)
    chosen = np.random.default_rng(0).choice(len(data.labels), 20000, replace=False)
    few = replace(data, samples=data.samples[chosen], labels=data.labels[chosen])
    of_the = float((data.test_labels == np.bincount(data.labels).argmax()).mean())
    terms = PretrainTerms(epochs=2, learning_rate=4e-3)
    assert learned(name, few, terms, classes=VOCABULARY, vocabulary=VOCABULARY) > 2 * of_the
