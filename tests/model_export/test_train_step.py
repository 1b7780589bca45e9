"""A train-step graph trains as the NumPy oracle does, as PyTorch does, and only what it was told to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fd_runtime.models.model import F32, Batch, OptimizerState, TrainSession
from fd_runtime.models.numpy_model import DenseChain, NumpyTrainSession
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.families import ForwardModel, build_family
from model_export.graph import GraphBuilder, GraphError, tensor
from model_export.surgery import cut, theta_of
from model_export.trainstep import OptimizerName, TrainStep, UnsupportedOpError, compile_train_step
from model_export.trainstep.draft import GRADIENT
from tests.support.dense_tails import SCALE, ZERO_POINT, dense_tail

CLASSES = 10
TERMS = {"learning_rate": 5e-3, "temperature": 2.0}
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "momentum", "adam")


@pytest.fixture(scope="module")
def cnn() -> ForwardModel:
    return build_family("cnn-s", (1, 8, 8), CLASSES, seed=4)


def step_of(family: ForwardModel, *trainable: str, **settings: object) -> TrainStep:
    names = trainable or family.parameters
    return compile_train_step(
        family.model, input_name="input", logits_name="logits", trainable=names, **{"optimizer": "adam", **settings}
    )


def batches(shape: tuple[int, ...], sizes: list[int], seed: int = 0) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    for rows in sizes:
        yield Batch(
            features=rng.normal(size=(rows, *shape)).astype(np.float32),
            labels=rng.integers(0, CLASSES, rows),
            targets=rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
            alpha=rng.integers(0, 2, rows).astype(np.float32),
            weight=rng.uniform(0.2, 1.0, rows).astype(np.float32),
        )


def session_of(family: ForwardModel, step: TrainStep) -> OnnxTrainSession:
    state = OptimizerState.fresh(theta_of(family.model, step.layout), step.slots)
    return OnnxTrainSession(step.model.SerializeToString(), state)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "extras",
    [{}, {"max_norm": 0.3}, {"max_norm": 100.0}, {"prox": 0.5}],
    ids=["plain", "clipped", "within the norm", "proximal"],
)
def test_twenty_steps_equal_those_of_the_numpy_oracle(optimizer: OptimizerName, extras: dict[str, float]) -> None:
    tail = dense_tail(64, 48, CLASSES, optimizer=optimizer)
    on_graph: TrainSession = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
    oracle: TrainSession = NumpyTrainSession(DenseChain(tail.step.layout, SCALE, ZERO_POINT), tail.fresh)
    for seed in range(20):
        batch = tail.batch(32, seed)
        terms = {**TERMS, "learning_rate": 2e-3, "reference": tail.theta, **extras}
        assert on_graph.run(batch, **terms) == pytest.approx(oracle.run(batch, **terms), rel=2e-5)
    # Adam divides by the gradient's size: where it is rounding noise alone, its sign may differ.
    np.testing.assert_allclose(on_graph.state.theta, oracle.state.theta, atol=2e-4 if optimizer == "adam" else 1e-6)
    assert on_graph.state.step == oracle.state.step == 20
    assert np.abs(on_graph.state.theta - tail.theta).max() > 0.002


def test_rows_of_weight_zero_change_nothing(cnn: ForwardModel) -> None:
    step = step_of(cnn)
    bare, padded = session_of(cnn, step), session_of(cnn, step)
    for batch in batches((1, 8, 8), [5, 5]):
        (garbage,) = batches((1, 8, 8), [3], seed=9)
        zeros = replace(garbage, weight=np.zeros(3, np.float32))
        losses = bare.run(batch, **TERMS), padded.run(joined(batch, zeros), **TERMS)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    np.testing.assert_allclose(bare.state.theta, padded.state.theta, atol=1e-5)


def test_a_batch_of_padding_alone_moves_nothing_and_is_finite(cnn: ForwardModel) -> None:
    step = step_of(cnn)
    session = session_of(cnn, step)
    (batch,) = batches((1, 8, 8), [4])
    begin = session.state.theta
    assert session.run(replace(batch, weight=np.zeros(4, np.float32)), **TERMS) == 0.0
    assert (session.state.theta == begin).all()


def test_one_graph_serves_batches_of_any_size(cnn: ForwardModel) -> None:
    """Three rows at once are three gradients averaged, by weight."""
    step = step_of(cnn, optimizer="sgd")
    (batch,) = batches((1, 8, 8), [3])
    together = session_of(cnn, step)
    begin = together.state.theta
    together.run(batch, **TERMS)
    moves = []
    for row in range(3):
        alone = session_of(cnn, step)
        alone.run(Batch(*(getattr(batch, name)[row : row + 1] for name in Batch.__slots__)), **TERMS)
        moves.append(alone.state.theta - begin)
    expected = np.average(moves, axis=0, weights=batch.weight)
    np.testing.assert_allclose(together.state.theta - begin, expected, atol=1e-6)


def test_a_frozen_parameter_costs_nothing_and_changes_no_other_gradient(cnn: ForwardModel) -> None:
    (batch,) = batches((1, 8, 8), [6])
    everything, tail = step_of(cnn, with_gradient=True), step_of(cnn, "tail1.bias", "tail2.weight", with_gradient=True)
    whole, part = gradient_of(cnn, everything, batch), gradient_of(cnn, tail, batch)
    assert list(part) == ["tail1.bias", "tail2.weight"]
    for name, gradient in part.items():
        np.testing.assert_allclose(gradient, whole[name], rtol=1e-5, atol=1e-6)
    backward = [node.name for node in tail.model.graph.node if node.name.startswith("grad/")]
    assert not [name for name in backward if "conv" in name or "embed" in name]


def test_what_is_frozen_needs_no_rule() -> None:
    build = GraphBuilder({"input"})
    frozen = build.op("Sin", build.op("MatMul", "input", build.parameter("frozen", np.ones((4, 4), np.float32))))
    build.op("MatMul", frozen, build.parameter("head", np.ones((4, 2), np.float32)), output="logits")
    model = build.model("frozen", [tensor("input", ("N", 4))], [tensor("logits", ("N", 2))])
    step = step_of(ForwardModel(model, ""), "head")
    assert [slot.name for slot in step.layout.slots] == ["head"]
    with pytest.raises(UnsupportedOpError, match=r"\(Sin\) .* freeze everything up to tensor .* \(parameters frozen\)"):
        step_of(ForwardModel(model, ""), "head", "frozen")


def test_theta_follows_the_order_of_the_initializers(cnn: ForwardModel) -> None:
    backwards = step_of(cnn, *cnn.parameters[::-1])
    assert tuple(slot.name for slot in backwards.layout.slots) == cnn.parameters


def test_weight_decay_shrinks_theta_apart_from_the_gradient(cnn: ForwardModel) -> None:
    plain, decayed = step_of(cnn), step_of(cnn, weight_decay=0.1)
    (batch,) = batches((1, 8, 8), [4])
    without, with_decay = session_of(cnn, plain), session_of(cnn, decayed)
    begin = without.state.theta
    without.run(batch, **TERMS)
    with_decay.run(batch, **TERMS)
    shrunk = TERMS["learning_rate"] * 0.1 * begin
    np.testing.assert_allclose(with_decay.state.theta, without.state.theta - shrunk, atol=1e-7)


def test_equal_maxima_share_the_gradient() -> None:
    build = GraphBuilder({"input"})
    shift = build.parameter("shift", np.zeros((1, 2, 2), np.float32))
    pooled = build.op("MaxPool", build.op("Add", "input", shift), kernel_shape=[2, 2], strides=[2, 2])
    flat = build.op("Flatten", pooled)
    build.op("Mul", flat, build.constant([1.0, 0.0]), output="logits")
    model = build.model("ties", [tensor("input", ("N", 1, 2, 2))], [tensor("logits", ("N", 2))])
    family = ForwardModel(model, "")
    step = step_of(family, "shift", with_gradient=True)
    tied = Batch(
        np.array([[[[3, 1], [3, 0]]]], np.float32),
        np.zeros(1, np.int64),
        np.zeros((1, 2), np.float32),
        np.ones(1, np.float32),
        np.ones(1, np.float32),
    )
    (gradient,) = gradient_of(family, step, tied).values()
    by_pooled = 1 / (1 + np.exp(-3.0)) - 1
    assert gradient[0, :, 0].tolist() == pytest.approx([by_pooled / 2, by_pooled / 2])
    assert (gradient[0, :, 1] == 0).all()


def test_a_step_reads_uint8_features() -> None:
    tail = dense_tail(64, CLASSES)
    assert tail.step.model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    session = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
    batch = tail.batch(64, seed=0)
    losses = [session.run(batch, **TERMS) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


def test_nothing_trains_before_an_integer_tensor() -> None:
    """The gradient of a rounding is no gradient: what lies before it must be frozen, and the error says so."""
    build = GraphBuilder({"input"})
    scale, zero = build.constant(0.1), build.constant(0, np.uint8)
    weight = build.parameter("early", np.ones((4, 2), np.float32))
    rounded = build.op("QuantizeLinear", build.op("MatMul", "input", weight), scale, zero)
    build.op("DequantizeLinear", rounded, scale, zero, output="logits")
    model = build.model("rounded", [tensor("input", ("N", 4))], [tensor("logits", ("N", 2))])
    with pytest.raises(
        UnsupportedOpError, match=r"\(DequantizeLinear\) .* freeze what lies before it \(parameters early\)"
    ):
        step_of(ForwardModel(model, ""), "early")


def test_the_graph_is_plain_onnx_with_every_node_named(cnn: ForwardModel) -> None:
    model = step_of(cnn).model
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {node.domain for node in model.graph.node} == {""}
    assert (model.ir_version, model.opset_import[0].version) == (10, 18)


def test_a_step_copies_neither_the_batch_nor_the_gradient(cnn: ForwardModel) -> None:
    """An Identity of a graph's input is a copy, and that of the gradient passes over all of theta once more."""
    nodes = step_of(cnn).model.graph.node
    copied = [name for node in nodes if node.op_type == "Identity" for name in node.output]
    assert set(copied) <= {"logits", "loss"}
    assert any("features" in node.input for node in nodes)


def test_the_contract_names_inputs_and_outputs(cnn: ForwardModel) -> None:
    graph = step_of(cnn).model.graph
    vectors = ["theta", "reference", "moment1", "moment2"]
    scalars = ["learning_rate", "temperature", "prox", "max_norm", "step"]
    assert [i.name for i in graph.input] == ["features", "labels", "targets", "alpha", "weight", *scalars, *vectors]
    assert [o.name for o in graph.output] == ["theta.new", "moment1.new", "moment2.new", "loss"]


def test_the_same_model_gives_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib; from model_export.families import build_family; from model_export.trainstep import *;"
        "f = build_family('cnn-s', (1, 8, 8), 10, 4);"
        "s = compile_train_step(f.model, input_name='input', logits_name='logits', trainable=f.parameters,"
        " optimizer='adam');"
        "print(hashlib.sha256(s.model.SerializeToString()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    family = build_family("cnn-s", (1, 8, 8), CLASSES, seed=4)
    assert digests == {hashlib.sha256(step_of(family).model.SerializeToString()).hexdigest()}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"trainable": ["conv1.weight", "nobody"]}, "nobody"),
        ({"trainable": []}, "not initializers"),
        ({"input_name": "embedding", "trainable": ["conv1.weight"]}, "conv1.weight"),
        ({"logits_name": "nowhere"}, "nowhere"),
        ({"input_name": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_name_is_refused_by_name(cnn: ForwardModel, names: dict[str, object], message: str) -> None:
    asked = {"input_name": "input", "logits_name": "logits", "trainable": cnn.parameters, "optimizer": "sgd", **names}
    with pytest.raises(GraphError, match=message):
        compile_train_step(cnn.model, **asked)


def test_a_parameter_without_gradient_is_refused() -> None:
    build = GraphBuilder({"input"})
    ratio = build.parameter("ratio", np.array(0.5, np.float32))
    dropped = build.op("Dropout", build.op("Mul", "input", build.parameter("gain", np.ones(2, np.float32))), ratio)
    build.op("Identity", dropped, output="logits")
    model = build.model("ratio", [tensor("input", ("N", 2))], [tensor("logits", ("N", 2))])
    with pytest.raises(UnsupportedOpError, match="freeze its input 'ratio'"):
        step_of(ForwardModel(model, ""), "gain", "ratio")


@pytest.mark.parametrize("shape", [("N", "M"), ("N", 2, 3)])
def test_logits_of_no_fixed_number_of_classes_are_refused(shape: tuple[int | str, ...]) -> None:
    build = GraphBuilder({"input"})
    build.op("Mul", "input", build.parameter("gain", np.ones(1, np.float32)), output="logits")
    model = build.model("open", [tensor("input", shape)], [tensor("logits", shape)])
    with pytest.raises(GraphError, match="classes"):
        step_of(ForwardModel(model, ""), "gain")


def test_a_tensor_that_takes_a_name_of_the_step_is_refused() -> None:
    build = GraphBuilder({"input"})
    build.op("MatMul", "input", build.parameter("theta", np.ones((4, 2), np.float32)), output="logits")
    model = build.model("clash", [tensor("input", ("N", 4))], [tensor("logits", ("N", 2))])
    with pytest.raises(GraphError, match="theta"):
        step_of(ForwardModel(model, ""), "theta")


def test_a_model_of_another_opset_is_refused(cnn: ForwardModel) -> None:
    older = onnx.ModelProto()
    older.CopyFrom(cnn.model)
    older.opset_import[0].version = 13
    with pytest.raises(GraphError, match="opset 13"):
        step_of(ForwardModel(older, ""))


class TestAgainstTorch:
    """An oracle that we did not write."""

    @pytest.fixture(autouse=True)
    def torch(self) -> object:
        self.torch = pytest.importorskip("torch", reason="torch is not installed: this oracle is optional")
        self.torch.set_num_threads(1)
        return self.torch

    def test_the_gradient_of_a_whole_cnn_equals_autograd(self, cnn: ForwardModel) -> None:
        (batch,) = batches((1, 8, 8), [6])
        gradients = gradient_of(cnn, step_of(cnn, with_gradient=True), batch)
        weights = self.parameters(cnn)
        self.loss(weights, batch).backward()
        for name, gradient in gradients.items():
            expected = weights[name].grad.numpy()
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    def test_twenty_adam_steps_follow_the_same_loss_curve(self, cnn: ForwardModel) -> None:
        session, weights = session_of(cnn, step_of(cnn)), self.parameters(cnn)
        adam = self.torch.optim.Adam(weights.values(), lr=TERMS["learning_rate"])
        for batch in batches((1, 8, 8), [8] * 20):
            adam.zero_grad()
            loss = self.loss(weights, batch)
            loss.backward()
            adam.step()
            assert session.run(batch, **TERMS) == pytest.approx(loss.item(), abs=1e-4)

    def parameters(self, family: ForwardModel) -> dict[str, object]:
        stored = {t.name: onnx.numpy_helper.to_array(t).copy() for t in family.model.graph.initializer}
        return {name: self.torch.tensor(stored[name], requires_grad=True) for name in family.parameters}

    def loss(self, weights: dict[str, object], batch: Batch) -> object:
        torch, F = self.torch, self.torch.nn.functional
        x = torch.tensor(batch.features)
        for stage in ("conv1", "conv2"):
            x = F.max_pool2d(F.relu(F.conv2d(x, weights[f"{stage}.weight"], weights[f"{stage}.bias"], padding=1)), 2)
        x = x.flatten(1)
        for layer in ("embed", "tail1"):
            x = F.relu(x @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"])
        z = x @ weights["tail2.weight"] + weights["tail2.bias"]
        T = TERMS["temperature"]
        alpha, weight = torch.tensor(batch.alpha), torch.tensor(batch.weight)
        label = F.cross_entropy(z, torch.tensor(batch.labels), reduction="none")
        soft = F.cross_entropy(z / T, torch.tensor(batch.targets), reduction="none")
        return (weight * (alpha * label + (1 - alpha) * T * T * soft)).sum() / weight.sum()


def test_the_tail_alone_trains_as_it_does_inside_the_whole(cnn: ForwardModel) -> None:
    tail = ForwardModel(cut(cnn.model, {cnn.features: "features"}, {"logits": "logits"}), "")
    names = ("tail1.weight", "tail1.bias", "tail2.weight", "tail2.bias")
    inside = step_of(cnn, *names, with_gradient=True)
    alone = compile_train_step(
        tail.model,
        input_name="features",
        logits_name="logits",
        trainable=names,
        optimizer="adam",
        with_gradient=True,
    )
    (batch,) = batches((1, 8, 8), [6])
    backbone = cut(cnn.model, {"input": "input"}, {cnn.features: "features"})
    (features,) = run(backbone, ["features"], {"input": batch.features})
    expected, gradients = gradient_of(cnn, inside, batch), gradient_of(tail, alone, replace(batch, features=features))
    for name in names:
        np.testing.assert_allclose(gradients[name], expected[name], rtol=1e-5, atol=1e-6)


def test_gradients_of_weights_are_done_before_the_next_layers_begin(tmp_path: Path) -> None:
    """Else onnxruntime would keep all activations to the end: it goes by the order in which nodes are written."""
    tail = dense_tail(8, 8, 8, 8, 8, CLASSES)
    layers = [node.name for node in tail.model.graph.node if node.op_type == "Gemm"]
    order = executed(tail.step.model, feed_of(tail.batch(4, seed=0), tail.theta, tail.step), tmp_path)
    places = {layer: [i for i, name in enumerate(order) if name.startswith(f"grad/{layer}/")] for layer in layers}
    for earlier, later in pairwise(layers):
        assert max(places[later]) < max(places[earlier])
    for earlier, _, later in zip(layers, layers[1:], layers[2:], strict=False):
        assert max(places[later]) < min(places[earlier])


def executed(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], folder: Path) -> list[str]:
    """Names of the nodes in the order in which onnxruntime runs them."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    return [e["name"].removesuffix("_kernel_time") for e in events if e["name"].endswith("_kernel_time")]


def gradient_of(family: ForwardModel, step: TrainStep, batch: Batch) -> dict[str, F32]:
    (gradient,) = run(step.model, [GRADIENT], feed_of(batch, theta_of(family.model, step.layout), step))
    return {slot.name: gradient[slot.offset : slot.end].reshape(slot.shape) for slot in step.layout.slots}


def feed_of(batch: Batch, theta: F32, step: TrainStep) -> dict[str, np.ndarray]:
    """All inputs of a first step."""
    scalars = {**TERMS, "prox": 0.0, "max_norm": 0.0, "step": 1.0}
    feed = {name: getattr(batch, name) for name in Batch.__slots__}
    feed |= {name: np.array(content, np.float32) for name, content in scalars.items()}
    return feed | {"theta": theta, "reference": theta, **{slot: np.zeros_like(theta) for slot in step.slots}}


def run(model: onnx.ModelProto, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


def joined(first: Batch, second: Batch) -> Batch:
    return Batch(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in Batch.__slots__))
