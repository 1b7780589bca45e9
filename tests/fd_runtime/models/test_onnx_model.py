"""Models on onnxruntime: swapping parameters, resuming, and refusing what would run and answer wrongly."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import ModelError, OptimizerState, ThetaError
from fd_runtime.models.numpy_model import DenseChain, NumpyTail
from fd_runtime.models.onnx_model import OnnxBackbone, OnnxTail, OnnxTrainSession
from model_export.families import build_family
from model_export.quantisation import quantise
from model_export.surgery import cut, theta_of
from tests.support.dense_tails import SCALE, ZERO_POINT, DenseTail, dense_tail

TERMS = {"learning_rate": 5e-3, "temperature": 2.0}


@pytest.fixture(scope="module")
def tail() -> DenseTail:
    return dense_tail(64, 48, 10)


def opened(tail: DenseTail) -> OnnxTail:
    return OnnxTail(tail.model.SerializeToString(), tail.step.layout)


def session_of(tail: DenseTail) -> OnnxTrainSession:
    return OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)


def test_a_tail_starts_with_the_parameters_in_its_file(tail: DenseTail) -> None:
    features = tail.batch(7, seed=0).features
    expected = NumpyTail(DenseChain(tail.step.layout, SCALE, ZERO_POINT), tail.theta).logits(features)
    np.testing.assert_allclose(opened(tail).logits(features), expected, rtol=1e-4, atol=1e-5)


def test_a_loaded_theta_answers_and_survives_the_callers_array(tail: DenseTail) -> None:
    features = tail.batch(7, seed=0).features
    theta = tail.theta * np.float32(0.5)
    expected = NumpyTail(DenseChain(tail.step.layout, SCALE, ZERO_POINT), theta).logits(features)
    model = opened(tail)
    model.load(theta)
    theta[:] = np.nan
    del theta
    gc.collect()
    np.testing.assert_allclose(model.logits(features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda theta: theta[:-1],
        lambda theta: theta.astype(np.float64),
        lambda theta: theta.reshape(1, -1),
        lambda theta: np.where(np.arange(len(theta)) == 3, np.float32(np.nan), theta),
    ],
    ids=["short", "float64", "matrix", "nan"],
)
def test_a_theta_that_does_not_fit_is_refused_and_the_old_one_stays(tail: DenseTail, spoil: object) -> None:
    features = tail.batch(7, seed=0).features
    model = opened(tail)
    before = model.logits(features)
    with pytest.raises(ThetaError):
        model.load(spoil(tail.theta))
    assert (model.logits(features) == before).all()


def test_a_swapped_convolution_answers_with_its_new_weights() -> None:
    """onnxruntime's own way to swap parameters keeps the old weights of convolutions (measured; silently)."""
    old, new = (build_family("cnn-s", (1, 28, 28), 3, seed).model for seed in (0, 1))
    samples = np.random.default_rng(0).random((5, 1, 28, 28), np.float32)
    tails = [cut(model, {"input": "features"}, {"logits": "logits"}) for model in (old, new)]
    layout = ThetaLayout.of((t.name, tuple(t.dims)) for t in old.graph.initializer)
    swapped, expected = (OnnxTail(tail.SerializeToString(), layout) for tail in tails)
    swapped.load(theta_of(new, layout))
    assert (swapped.logits(samples) == expected.logits(samples)).all()


def test_a_layout_of_another_tail_is_refused(tail: DenseTail) -> None:
    renamed = ThetaLayout.of((f"other{index}", slot.shape) for index, slot in enumerate(tail.step.layout.slots))
    with pytest.raises(ModelError, match="other0"):
        OnnxTail(tail.model.SerializeToString(), renamed).load(tail.theta)


@pytest.mark.parametrize("rows", [0, 1, 64, 65, 200])
def test_any_number_of_rows_is_answered_row_by_row(tail: DenseTail, rows: int) -> None:
    features = tail.batch(256, seed=0).features[:rows]
    expected = NumpyTail(DenseChain(tail.step.layout, SCALE, ZERO_POINT), tail.theta).logits(features)
    np.testing.assert_allclose(opened(tail).logits(features), expected, rtol=1e-4, atol=1e-5)


def test_a_backbone_extracts_from_no_sample_and_from_many() -> None:
    forward = build_family("cnn-s", (1, 8, 8), 3, seed=0)
    samples = np.random.default_rng(0).random((130, 1, 8, 8), np.float32)
    backbone = OnnxBackbone(quantise(forward, samples).backbone.SerializeToString())
    features = backbone.extract(samples)
    assert (backbone.extract(samples[100:103]) == features[100:103]).all()
    assert backbone.extract(samples[:0]).shape == (0, 64)


def test_a_train_session_resumes_to_the_same_bits(tail: DenseTail) -> None:
    straight, first = session_of(tail), session_of(tail)
    for seed in range(6):
        straight.run(tail.batch(32, seed), **TERMS)
    for seed in range(3):
        first.run(tail.batch(32, seed), **TERMS)
    resumed = OnnxTrainSession(tail.step.model.SerializeToString(), first.state)
    for seed in range(3, 6):
        resumed.run(tail.batch(32, seed), **TERMS)
    assert resumed.state.step == straight.state.step
    assert (resumed.state.theta == straight.state.theta).all()


def test_a_kept_state_is_not_changed_by_later_steps(tail: DenseTail) -> None:
    session = session_of(tail)
    session.run(tail.batch(32, 0), **TERMS)
    kept, copy = session.state, session.state.theta.copy()
    session.run(tail.batch(32, 1), **TERMS)
    assert (kept.theta == copy).all()
    assert (session.state.theta != copy).any()


def test_a_state_of_another_optimizer_is_refused(tail: DenseTail) -> None:
    velocity = OptimizerState(tail.theta, {"velocity": np.zeros_like(tail.theta)})
    with pytest.raises(ThetaError, match="moment1"):
        OnnxTrainSession(tail.step.model.SerializeToString(), velocity)


def test_a_state_of_another_length_is_refused(tail: DenseTail) -> None:
    session = session_of(tail)
    with pytest.raises(ThetaError, match="3610"):
        session.state = OptimizerState.fresh(tail.theta[1:], tail.step.slots)


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(ModelError):
        OnnxBackbone(b"not a graph")


def test_features_of_another_shape_or_type_are_refused(tail: DenseTail) -> None:
    batch = tail.batch(4, 0)
    with pytest.raises(ModelError):
        opened(tail).logits(batch.features[:, :-1])
    with pytest.raises(ModelError):
        opened(tail).logits(batch.features.astype(np.float32))
    with pytest.raises(ModelError):
        session_of(tail).run(replace(batch, targets=batch.targets[:, :-1]), **TERMS)


def test_onnxruntime_is_told_not_to_report_usage_before_it_is_imported() -> None:
    program = "import os, fd_runtime.models.onnx_model; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    answer = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, check=True, text=True)
    assert answer.stdout.strip() == "1"
