"""A reference tells where numbers lie, and nothing else of the samples that it was made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Manifest, Preprocessing, Task
from fd_protocol.reference import MAX_POOLED, Binned, Reference
from fd_runtime.artifacts import load_bundle
from fd_runtime.models.reference import POOLED, binned, counts_of, pooled, reference_of
from fd_runtime.releases import release
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.support.small_bundles import pictures, small_bundle

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3,), (16,), (17,), (64,), (8, 4, 4), (40, 2, 3), (200,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_sample_is_pooled_to_a_few_finite_numbers(shape, dtype):
    features = (RNG.random((5, *shape)) * 100).astype(dtype)
    numbers = pooled(features)
    assert numbers.shape == (5, min(POOLED, shape[0]))
    assert numbers.dtype == np.float32
    assert np.allclose(numbers.mean(), features.mean(), rtol=0.2)


def test_maps_are_averaged_over_their_places_and_neighbours_over_each_other():
    maps = np.arange(2 * 2 * 2 * 2, dtype=np.float32).reshape(2, 2, 2, 2)
    assert pooled(maps).tolist() == maps.mean(axis=(2, 3)).tolist()
    long = np.arange(32, dtype=np.uint8)[None]
    assert pooled(long).tolist() == [[0.5 + 2 * place for place in range(16)]]


def test_a_missing_value_counts_as_nothing():
    assert pooled(np.array([[np.nan, 2.0]], np.float32)).tolist() == [[0.0, 2.0]]


def test_of_tokens_the_share_in_each_range_is_told():
    numbers = pooled(np.array([[0, 1, 31, 31]], np.int32), vocabulary=32)
    assert numbers[0, 0] == numbers[0, 15] == 0.5
    assert numbers.sum() == 1.0


def test_a_number_lies_in_tenths():
    spread = binned(np.arange(1000, dtype=np.float32))
    assert len(spread.shares) == 10
    assert np.allclose(spread.shares, 0.1, atol=0.002)


def test_many_equal_values_leave_fewer_bins_and_no_empty_one():
    spread = binned(np.array([0.0] * 700 + list(range(1, 301)), np.float32))  # as after a Relu
    assert min(spread.shares) > 0
    assert sum(spread.shares) == pytest.approx(1.0)
    constant = binned(np.full(200, 3.0, np.float32))
    assert constant == Binned((), (1.0,))


@given(arrays.arrays(np.float32, st.integers(100, 300), elements=st.floats(-1e6, 1e6, width=32)))
def test_what_a_reference_was_made_of_lies_as_it_says(values):
    spread = binned(values)
    shares = counts_of(spread.edges, values) / len(values)
    assert np.allclose(shares, spread.shares, atol=1e-5)


@pytest.mark.parametrize(
    ("edges", "shares"),
    [((1.0,), (1.0,)), ((2.0, 1.0), (0.2, 0.3, 0.5)), ((1.0,), (0.2, 0.3)), ((float("nan"),), (0.5, 0.5)), ((), ())],
)
def test_bins_that_cannot_be_are_refused(edges, shares):
    with pytest.raises(InvalidValueError):
        Binned(edges, shares)


def test_a_reference_has_rows_and_a_bounded_number_of_features():
    spread = Binned((), (1.0,))
    for rows, features in ((0, (spread,)), (1, ()), (1, (spread,) * (MAX_POOLED + 1))):
        with pytest.raises(InvalidValueError):
            Reference(rows, features)


def test_a_bundle_is_built_with_the_reference_of_its_calibration_samples(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", rows=300)
    reference = bundle.manifest.reference
    model, samples = bundle.open("onnxruntime"), pictures(300, seed=7)[0].astype(np.float32) / np.float32(255)
    features = model.features(samples)
    logits = model.tail.logits(features)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (chances / chances.sum(axis=1, keepdims=True)).max(axis=1)
    expected = reference_of(pooled(features), confidence.astype(np.float32))
    assert (reference.rows, reference.features) == (expected.rows, expected.features)
    assert np.allclose(reference.confidence.edges, expected.confidence.edges, rtol=1e-4)
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_few_calibration_samples_make_no_reference_and_the_manifest_none_of_its_keys(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", rows=64)
    assert bundle.manifest.reference is None
    assert "reference" not in json.loads(bundle.manifest.to_json())


def test_the_reference_is_a_small_part_of_a_manifest(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", rows=300)
    assert len(bundle.manifest.to_json()) < 16_000


def test_a_release_keeps_how_the_features_lie_and_forgets_how_sure_other_parameters_were(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", rows=300)
    theta = np.zeros(bundle.manifest.layout.size, np.float32)
    later = load_bundle(release(bundle, theta, tmp_path / "later", version="2").folder)
    assert later.manifest.reference.features == bundle.manifest.reference.features
    assert later.manifest.reference.confidence is None


def test_without_a_backbone_the_samples_themselves_are_measured(tmp_path):
    task = Task(("a", "b"), (20,), "uint8", Preprocessing(1 / 255))
    samples = RNG.integers(0, 256, (150, 20), dtype=np.uint8)
    data = FactoryData(samples[:0], np.empty(0, np.int64), calibration=samples)
    recipe = Recipe("points", "mlp-s", pretraining=None, tflite="none")
    bundle = build(recipe, task, data, tmp_path / "bundle")
    assert bundle.manifest.reference.features == reference_of(pooled(preprocessed(samples, task)), None).features
