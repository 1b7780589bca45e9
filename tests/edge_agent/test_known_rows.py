"""What calibration learns of labelled rows, those of a file and those of a real private store."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edge_agent.inference.calibration import MOST_ROWS
from edge_agent.inference.known_rows import KnownRows
from edge_agent.private.data import PrivateRows
from edge_agent.private.facts import is_held_out
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_protocol.errors import FedistillError
from fd_runtime.space import preprocessed
from tests.support.small_bundles import PICTURES, pictures

NOTHING = PrivateRows(*pictures(0))


@pytest.fixture
def model(bundle):
    return bundle.open("onnxruntime")


@pytest.fixture
def store(bundle):
    made = PrivateStore.open(None, StoreSettings(rows=300), bundle.manifest, rng=random.Random(0))
    yield made
    made.close()


def add(store, samples, labels):
    for number, (sample, label) in enumerate(zip(samples, labels, strict=True)):
        store.add(sample, sample_id=f"s-{number}", label=int(label), confidence=None, at_ms=2**41, source="line")


def features_of(model, samples):
    return model.features(preprocessed(samples, PICTURES))


def test_of_a_file_one_row_in_ten_is_held_out_and_seen_once(model, monkeypatch):
    samples, labels = pictures(200)
    known = KnownRows(PrivateRows(samples, labels), None, model)
    told = known()
    np.testing.assert_array_equal(told.held_out_labels, labels[9::10])
    np.testing.assert_array_equal(told.held_out, features_of(model, samples[9::10]))
    assert told.met.tolist() == np.bincount(told.labels, minlength=3).tolist()
    assert len(told.labels) == 180
    monkeypatch.setattr(type(model.backbone), "extract", None)
    assert known() is told


def test_of_a_file_the_newest_rows_are_enough(model):
    samples, labels = pictures(20 * MOST_ROWS)
    told = KnownRows(PrivateRows(samples, labels), None, model)()
    np.testing.assert_array_equal(told.held_out_labels, labels[9::10][-MOST_ROWS:])


def test_without_rows_nothing_is_known(model, store):
    told = KnownRows(NOTHING, store, model)()
    assert not told.met.any()
    assert (len(told.labels), len(told.held_out_labels), len(told.held_out)) == (0, 0, 0)


def test_rows_of_a_file_and_of_a_store_count_together(model, store):
    (file_samples, file_labels), (samples, labels) = pictures(200, seed=1), pictures(100, seed=2)
    known = KnownRows(PrivateRows(file_samples, file_labels), store, model)
    assert len(known().held_out_labels) == 20
    add(store, samples, labels)
    told, sides = known(), np.array([is_held_out(f"s-{number}") for number in range(100)])
    assert told.met.sum() == 180 + 100
    assert len(told.labels) == 180 + (~sides).sum()
    np.testing.assert_array_equal(told.held_out_labels, [*file_labels[9::10], *labels[sides]])
    np.testing.assert_array_equal(told.held_out[20:], features_of(model, samples[sides]))


def test_a_store_that_keeps_classes_alike_still_tells_which_are_common(model, store):
    samples, _ = pictures(2000, seed=3)
    labels = np.where(np.arange(2000) % 20 == 0, 1, 0)
    add(store, samples, labels)
    told = KnownRows(NOTHING, store, model)()
    assert np.bincount(told.labels).max() < 300  # 19 to 1 came, 100 of the rare class are kept
    assert told.met[0] / told.met[1] == pytest.approx(19, rel=0.01)


def test_a_store_that_cannot_be_read_is_an_error_and_not_no_rows(model, store):
    add(store, *pictures(100))
    store.close()
    with pytest.raises(FedistillError):
        KnownRows(NOTHING, store, model)()
