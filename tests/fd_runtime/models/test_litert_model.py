"""A model on LiteRT behaves as its twin on onnxruntime."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.litert_model import LiteRtBackbone, LiteRtTail, LiteRtTrainSession
from fd_runtime.models.model import Batch, ModelError, OptimizerState, ThetaError, TrainSession
from fd_runtime.models.onnx_model import OnnxTail, OnnxTrainSession
from model_export.tflite import lower_backbone, lower_tail, lower_train_step
from tests.support.backbones import family_in_int8, pictures
from tests.support.dense_tails import DenseTail, dense_tail, whole_network

ROWS = 32
TERMS = {"learning_rate": 5e-3, "temperature": 2.0}


@pytest.fixture(scope="module")
def tail() -> DenseTail:
    return dense_tail(64, 48, 10)


@pytest.fixture(scope="module")
def step_file(tail: DenseTail) -> bytes:
    return lower_train_step(tail.step.model, ROWS)


@pytest.fixture
def on_litert(tail: DenseTail, step_file: bytes) -> LiteRtTrainSession:
    return LiteRtTrainSession(step_file, tail.fresh)


@pytest.fixture
def on_onnxruntime(tail: DenseTail) -> OnnxTrainSession:
    return OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)


def take_steps(session: TrainSession, batches: list[Batch], **terms: object) -> list[float]:
    return [session.run(batch, **(TERMS | terms)) for batch in batches]


def assert_same_state(first: OptimizerState, second: OptimizerState, tolerance: float) -> None:
    assert first.step == second.step
    np.testing.assert_allclose(first.theta, second.theta, rtol=0, atol=tolerance)
    for name in second.slots:
        np.testing.assert_allclose(first.slots[name], second.slots[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "terms",
    [{}, {"temperature": 1.0}, {"max_norm": 0.5}, {"prox": 0.3}],
    ids=["plain", "cold", "clipped", "proximal"],
)
def test_each_of_twenty_adam_steps_equals_that_of_onnxruntime(
    tail: DenseTail, on_litert: LiteRtTrainSession, on_onnxruntime: OnnxTrainSession, terms: dict[str, float]
) -> None:
    terms = terms | ({"reference": tail.theta} if "prox" in terms else {})
    for seed in range(20):
        on_litert.state = on_onnxruntime.state  # rounding grows from step to step, by 1e-4 in twenty
        losses = [take_steps(session, [tail.batch(ROWS, seed)], **terms) for session in (on_litert, on_onnxruntime)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        assert_same_state(on_litert.state, on_onnxruntime.state, 1e-5)


@pytest.mark.parametrize("optimizer", ["momentum", "sgd"])
def test_the_other_optimizers_equal_those_of_onnxruntime(optimizer: str) -> None:
    tail = dense_tail(64, 48, 10, optimizer=optimizer)
    litert = LiteRtTrainSession(lower_train_step(tail.step.model, ROWS), tail.fresh)
    onnxruntime = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
    batches = [tail.batch(ROWS, seed) for seed in range(20)]
    np.testing.assert_allclose(take_steps(litert, batches), take_steps(onnxruntime, batches), rtol=1e-5)
    assert_same_state(litert.state, onnxruntime.state, 1e-5)


def test_a_whole_network_without_a_backbone_trains_on_float_samples() -> None:
    tail = whole_network("mlp-s", (2, 5, 2), 3)
    litert = LiteRtTrainSession(lower_train_step(tail.step.model, 8), tail.fresh)
    onnxruntime = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
    batches = [tail.batch(8, seed) for seed in range(20)]
    np.testing.assert_allclose(take_steps(litert, batches), take_steps(onnxruntime, batches), rtol=1e-5)
    assert_same_state(litert.state, onnxruntime.state, 1e-5)
    layout, samples = tail.step.layout, batches[0].features
    ours = LiteRtTail(lower_tail(tail.model, layout), tail.theta).logits(samples)
    np.testing.assert_allclose(ours, OnnxTail(tail.model.SerializeToString(), layout).logits(samples), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 20])
def test_a_ragged_batch_counts_its_own_rows_only(
    tail: DenseTail, on_litert: LiteRtTrainSession, on_onnxruntime: OnnxTrainSession, rows: int
) -> None:
    batches = [tail.batch(rows, 3)]
    np.testing.assert_allclose(take_steps(on_litert, batches), take_steps(on_onnxruntime, batches), rtol=1e-5)
    assert_same_state(on_litert.state, on_onnxruntime.state, 1e-6)


def test_a_batch_larger_than_the_graph_is_refused_and_changes_nothing(
    tail: DenseTail, on_litert: LiteRtTrainSession
) -> None:
    with pytest.raises(InvalidValueError, match="33 rows; this train step takes 32"):
        on_litert.run(tail.batch(ROWS + 1, 0), **TERMS)
    assert on_litert.state.step == 0


def test_a_session_resumes_bit_for_bit(tail: DenseTail, step_file: bytes, on_litert: LiteRtTrainSession) -> None:
    batches = [tail.batch(ROWS, seed) for seed in range(6)]
    take_steps(on_litert, batches[:3])
    resumed = LiteRtTrainSession(step_file, on_litert.state)
    assert take_steps(resumed, batches[3:]) == take_steps(on_litert, batches[3:])
    assert_same_state(resumed.state, on_litert.state, 0)


def test_a_step_leaves_earlier_states_alone(tail: DenseTail, on_litert: LiteRtTrainSession) -> None:
    before = on_litert.state
    kept = before.theta.copy()
    on_litert.run(tail.batch(ROWS, 0), **TERMS)
    after = on_litert.state.theta.copy()
    on_litert.run(tail.batch(ROWS, 1), **TERMS)
    np.testing.assert_array_equal(before.theta, kept)
    assert not np.array_equal(on_litert.state.theta, after)


def test_a_state_of_another_optimizer_is_refused(tail: DenseTail, step_file: bytes) -> None:
    with pytest.raises(ThetaError, match="velocity"):
        LiteRtTrainSession(step_file, OptimizerState.fresh(tail.theta, ("velocity",)))


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_a_tail_gives_the_logits_of_onnxruntime_for_any_number_of_rows(tail: DenseTail, rows: int) -> None:
    layout = tail.step.layout
    on_litert = LiteRtTail(lower_tail(tail.model, layout), tail.theta)
    on_onnxruntime = OnnxTail(tail.model.SerializeToString(), layout)
    features = tail.batch(rows, 5).features
    np.testing.assert_allclose(on_litert.logits(features), on_onnxruntime.logits(features), rtol=1e-5, atol=1e-5)


def test_a_tail_answers_with_the_theta_it_was_last_given(tail: DenseTail) -> None:
    layout, features = tail.step.layout, tail.batch(4, 5).features
    theta = np.random.default_rng(2).standard_normal(layout.size).astype(np.float32)
    on_onnxruntime = OnnxTail(tail.model.SerializeToString(), layout)
    on_onnxruntime.load(theta)
    on_litert = LiteRtTail(lower_tail(tail.model, layout), tail.theta)
    on_litert.load(theta)
    theta[:] = 0  # the caller's array is the caller's
    np.testing.assert_allclose(on_litert.logits(features), on_onnxruntime.logits(features), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("broken", ["long", "double", "infinite"])
def test_a_theta_that_does_not_fit_is_refused_and_the_old_one_stays(tail: DenseTail, broken: str) -> None:
    on_litert = LiteRtTail(lower_tail(tail.model, tail.step.layout), tail.theta)
    features = tail.batch(4, 5).features
    before = on_litert.logits(features)
    theta = {
        "long": np.append(tail.theta, np.float32(0)),
        "double": tail.theta.astype(np.float64),
        "infinite": np.where(np.arange(tail.theta.size) == 5, np.inf, tail.theta).astype(np.float32),
    }[broken]
    with pytest.raises(ThetaError):
        on_litert.load(theta)
    np.testing.assert_array_equal(on_litert.logits(features), before)


@pytest.mark.parametrize("rows", [1, 64, 65, 130])
def test_a_sample_has_the_same_features_in_every_company(rows: int) -> None:
    backbone = LiteRtBackbone(lower_backbone(family_in_int8("cnn-s").backbone))
    samples = pictures(rows, (1, 28, 28))
    one_by_one = [backbone.extract(sample[np.newaxis]) for sample in samples]
    np.testing.assert_array_equal(backbone.extract(samples), np.concatenate(one_by_one))


@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(400)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tail: DenseTail) -> None:
    with pytest.raises(ModelError, match="litert refuses the file"):
        LiteRtTrainSession(content, tail.fresh)


def test_a_file_of_another_role_is_refused_by_the_input_it_lacks(tail: DenseTail) -> None:
    with pytest.raises(ModelError, match="no input 'weight', only features, theta"):
        LiteRtTrainSession(lower_tail(tail.model, tail.step.layout), tail.fresh)


@pytest.mark.parametrize("rows", [1, 2])
def test_features_of_another_width_are_refused_without_harm(tail: DenseTail, rows: int) -> None:
    on_litert = LiteRtTail(lower_tail(tail.model, tail.step.layout), tail.theta)
    with pytest.raises(ModelError, match="litert refuses the inputs"):
        on_litert.logits(np.zeros((rows, 63), np.uint8))
    assert on_litert.logits(np.zeros((1, 64), np.uint8)).shape == (1, 10)


def test_without_its_runtime_the_error_says_what_to_install_and_no_other_steps_in(
    tail: DenseTail, step_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    with pytest.raises(ModelError, match=r"litert is not installed: pip install 'fedistill\[agent-tflite\]'"):
        LiteRtTrainSession(step_file, tail.fresh, "litert")


@pytest.mark.skipif(np.__version__ < "2", reason="tflite-runtime works with this NumPy")
def test_tflite_runtime_under_numpy_2_is_refused_before_it_dies(tail: DenseTail, step_file: bytes) -> None:
    with pytest.raises(ModelError, match=r"dies under numpy 2: install numpy 1\.26\.4"):
        LiteRtTrainSession(step_file, tail.fresh, "tflite-runtime")
