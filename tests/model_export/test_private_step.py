"""A private step moves by what clipped rows say, and no row, however wild, can make itself heard beyond the clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import F32, Batch, ModelError, OptimizerState, PrivateTrainSession, split_theta
from fd_runtime.models.numpy_model import DenseChain, NumpyTrainSession
from fd_runtime.models.onnx_model import OnnxPrivateTrainSession, OnnxTrainSession
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.graph import GraphBuilder, tensor
from model_export.surgery import theta_of
from model_export.trainstep import TrainStep, UnsupportedOpError, compile_private_step, compile_train_step
from tests.support.dense_tails import SCALE, ZERO_POINT, DenseTail, dense_tail

WIDTHS = (12, 9, 7, 4)
INPUTS, HIDDEN, CLASSES = 6, 5, 3
TEMPERATURE = 2.0
Write = Callable[[GraphBuilder], None]


def private(tail: DenseTail, optimizer: str = "momentum", trainable: list[str] | None = None) -> TrainStep:
    names = trainable or [slot.name for slot in tail.step.layout.slots]
    return compile_private_step(
        tail.model, input_name="features", logits_name="logits", trainable=names, optimizer=optimizer
    )


def session_of(step: TrainStep, theta: F32) -> OnnxPrivateTrainSession:
    return OnnxPrivateTrainSession(step.model.SerializeToString(), OptimizerState.fresh(theta, step.slots))


def update(step: TrainStep, theta: F32, batch: Batch, clip_norm: float, expected_rows: float = 8.0) -> F32:
    """What the optimizer is told, times the expected rows: the velocity after a first step without noise."""
    session = session_of(step, theta)
    advance(session, batch, clip_norm=clip_norm, expected_rows=expected_rows)
    return session.state.slots["velocity"] * np.float32(expected_rows)


def advance(session: PrivateTrainSession, batch: Batch, **terms: object) -> float:
    silence = np.zeros_like(session.state.theta)
    defaults = {"learning_rate": 1e-3, "clip_norm": 1.0, "noise": silence, "expected_rows": 8.0}
    return session.run(batch, temperature=TEMPERATURE, **{**defaults, **terms})


def rows_of(batch: Batch, rows: slice | np.ndarray) -> Batch:
    return Batch(*(getattr(batch, name)[rows] for name in Batch.__slots__))


def summed_by_loop(tail: DenseTail, batch: Batch, clip_norm: float) -> F32:
    """The oracle: NumPy's gradient of one row after another, each clipped by itself."""
    total = np.zeros_like(tail.theta)
    for row in range(len(batch.weight)):
        alone = rows_of(batch, slice(row, row + 1))
        chain = DenseChain(tail.step.layout, SCALE, ZERO_POINT)
        session = NumpyTrainSession(chain, OptimizerState.fresh(tail.theta, ["velocity"]))
        session.run(replace(alone, weight=np.ones(1, np.float32)), learning_rate=1.0, temperature=TEMPERATURE)
        gradient = batch.weight[row] * session.state.slots["velocity"]
        total += gradient * min(1.0, clip_norm / max(float(np.linalg.norm(gradient)), 1e-12))
    return total


@pytest.mark.parametrize("clip_norm", [1e-3, 2.0, 1e6], ids=["all clipped", "some clipped", "none clipped"])
def test_the_update_is_the_sum_of_each_rows_clipped_gradient(clip_norm: float) -> None:
    tail = dense_tail(*WIDTHS)
    batch = tail.batch(24, seed=3)
    expected = summed_by_loop(tail, batch, clip_norm)
    found = update(private(tail), tail.theta, batch, clip_norm)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max() + 1e-9)


def test_some_rows_are_clipped_in_the_middle_case_and_some_are_not() -> None:
    tail = dense_tail(*WIDTHS)
    batch = tail.batch(24, seed=3)
    norms = [np.linalg.norm(summed_by_loop(tail, rows_of(batch, slice(i, i + 1)), 1e9)) for i in range(24)]
    assert 4 < sum(norm > 2.0 for norm in norms) < 20


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_without_clip_and_noise_it_is_the_plain_step(optimizer: str) -> None:
    tail = dense_tail(*WIDTHS, optimizer=optimizer)
    secret = session_of(private(tail, optimizer), tail.theta)
    plain = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
    for seed in range(5):
        batch = replace(tail.batch(16, seed), weight=np.ones(16, np.float32))
        terms = {"reference": tail.theta, "prox": 0.5}
        loss = advance(secret, batch, clip_norm=1e6, expected_rows=16.0, **terms)
        assert loss == pytest.approx(plain.run(batch, learning_rate=1e-3, temperature=TEMPERATURE, **terms), rel=1e-5)
    np.testing.assert_allclose(secret.state.theta, plain.state.theta, atol=2e-5)


@pytest.mark.parametrize("names", [["weight2"], ["bias0", "bias1", "bias2"], ["weight0", "bias2"]])
def test_only_what_trains_counts_in_a_rows_norm(names: list[str]) -> None:
    tail = dense_tail(*WIDTHS)
    step = private(tail, trainable=names)
    theta = theta_of(tail.model, step.layout)
    for row in range(6):
        alone = rows_of(tail.batch(6, seed=1), slice(row, row + 1))
        whole = split_theta(summed_by_loop(tail, alone, 1e9), tail.step.layout)
        expected = np.concatenate([whole[name].ravel() for name in names])
        np.testing.assert_allclose(update(step, theta, alone, 1e9), expected, rtol=1e-4, atol=1e-6)
        small = 0.5 * float(np.linalg.norm(expected))
        assert np.linalg.norm(update(step, theta, alone, small)) == pytest.approx(small, rel=1e-5)


NUMBER = st.floats(width=32) | st.sampled_from([1e-38, 1e3, 1e6, 1e19, 3e38])
"""Any number a program could hand over, NaN and infinities included."""


@cache
def floats_tail() -> TrainStep:
    """A tail that reads float32 features, which may hold anything."""
    return compile_private_step(
        chain_of(lambda b: gemm(b, "x", "w", "b")),
        input_name="features",
        logits_name="logits",
        trainable=["first", "first.bias", "w", "b"],
        optimizer="momentum",
    )


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(NUMBER, min_size=INPUTS, max_size=INPUTS),
    weight=NUMBER,
    alpha=NUMBER,
    target=st.lists(NUMBER, min_size=CLASSES, max_size=CLASSES),
    label=st.integers(-2, CLASSES + 2),
    clip_norm=st.sampled_from([1e-3, 1.0, 50.0]),
    scale=st.sampled_from([0.0, 0.5, 30.0]),
)
def test_one_more_row_moves_the_sum_by_at_most_the_clip(
    row: list[float],
    weight: float,
    alpha: float,
    target: list[float],
    label: int,
    clip_norm: float,
    scale: float,
) -> None:
    """Whatever that row is: huge, not finite, of any weight, a label out of range."""
    step, rng = floats_tail(), np.random.default_rng(0)
    theta = (scale * rng.standard_normal(step.layout.size)).astype(np.float32)
    stranger = Batch(
        np.array([row], np.float32),
        np.array([label]),
        np.array([target], np.float32),
        np.array([alpha], np.float32),
        np.array([weight], np.float32),
    )
    others = plain_batch(7)
    neighbour = Batch(*(np.concatenate([getattr(b, n) for b in (others, stranger)]) for n in Batch.__slots__))
    moved = update(step, theta, neighbour, clip_norm) - update(step, theta, others, clip_norm)
    assert np.linalg.norm(moved) <= clip_norm * (1 + 1e-4)


def test_a_large_row_uses_its_whole_allowance() -> None:
    """The bound above would also hold for a step that ignores its rows."""
    step = floats_tail()
    theta = np.random.default_rng(0).standard_normal(step.layout.size).astype(np.float32)
    batch = plain_batch(7)
    batch.features[0] = 1e5
    moved = update(step, theta, batch, 1.0) - update(step, theta, rows_of(batch, slice(1, 7)), 1.0)
    assert np.linalg.norm(moved) == pytest.approx(1.0, rel=1e-4)


def test_rows_of_weight_zero_change_nothing() -> None:
    tail = dense_tail(*WIDTHS)
    batch, step = tail.batch(9, seed=2), private(tail)
    padded = replace(batch, weight=np.where(np.arange(9) < 5, batch.weight, 0).astype(np.float32))
    bare = update(step, tail.theta, rows_of(batch, slice(0, 5)), 0.5)
    np.testing.assert_allclose(update(step, tail.theta, padded, 0.5), bare, atol=1e-6)


def test_a_lot_is_divided_by_its_expected_size_whatever_came() -> None:
    tail = dense_tail(*WIDTHS)
    step = private(tail)
    for rows in (3, 11):
        batch = tail.batch(rows, seed=0)
        session = session_of(step, tail.theta)
        advance(session, batch, expected_rows=50.0)
        expected = summed_by_loop(tail, batch, 1.0) / 50
        np.testing.assert_allclose(session.state.slots["velocity"], expected, atol=1e-6)


def test_an_empty_lot_is_a_row_of_padding_and_still_takes_the_noise() -> None:
    tail = dense_tail(*WIDTHS, optimizer="sgd")
    session = session_of(private(tail, "sgd"), tail.theta)
    empty = replace(tail.batch(1, seed=0), weight=np.zeros(1, np.float32))
    noise = np.random.default_rng(0).standard_normal(tail.theta.size).astype(np.float32)
    assert advance(session, empty, noise=noise, learning_rate=0.5, expected_rows=10.0) == 0.0
    np.testing.assert_allclose(session.state.theta, tail.theta - 0.05 * noise, atol=1e-6)


def test_noise_is_added_as_it_comes() -> None:
    tail = dense_tail(*WIDTHS)
    batch, step = tail.batch(9, seed=2), private(tail)
    noise = np.random.default_rng(0).standard_normal(tail.theta.size).astype(np.float32)
    quiet, noisy = (session_of(step, tail.theta) for _ in range(2))
    advance(quiet, batch, clip_norm=0.01, expected_rows=4.0)
    advance(noisy, batch, clip_norm=0.01, expected_rows=4.0, noise=noise)
    np.testing.assert_allclose(noisy.state.slots["velocity"] - quiet.state.slots["velocity"], noise / 4, atol=1e-6)


def test_the_graph_draws_nothing_itself() -> None:
    graph = private(dense_tail(*WIDTHS)).model.graph
    assert not [node.op_type for node in graph.node if "Random" in node.op_type or node.op_type == "Bernoulli"]
    assert {node.domain for node in graph.node} == {""}


def test_the_contract_names_inputs_and_outputs() -> None:
    graph = private(dense_tail(*WIDTHS), "adam").model.graph
    vectors = ["theta", "reference", "moment1", "moment2", "noise"]
    scalars = ["learning_rate", "temperature", "prox", "max_norm", "step", "expected_rows"]
    assert [i.name for i in graph.input] == ["features", "labels", "targets", "alpha", "weight", *scalars, *vectors]
    assert [o.name for o in graph.output] == ["theta.new", "moment1.new", "moment2.new", "loss"]


@pytest.mark.parametrize("terms", [{"clip_norm": 0.0}, {"clip_norm": -1.0}, {"expected_rows": 0.0}])
@pytest.mark.parametrize("spoiled", [0.0, float("nan"), float("inf")])
def test_terms_without_a_bound_are_refused(terms: dict[str, float], spoiled: float) -> None:
    tail = dense_tail(*WIDTHS)
    session = session_of(private(tail), tail.theta)
    (name,) = terms
    for content in (terms[name], spoiled):
        with pytest.raises(InvalidValueError, match="positive"):
            advance(session, tail.batch(4, 0), **{name: content})
    assert session.state.step == 0


def test_noise_of_another_length_is_refused() -> None:
    tail = dense_tail(*WIDTHS)
    session = session_of(private(tail), tail.theta)
    with pytest.raises(ModelError):
        advance(session, tail.batch(4, 0), noise=np.zeros(3, np.float32))


# What a private step takes, and what it refuses.


def chain_of(write: Write, *, features: tuple[int | str, ...] = ("N", INPUTS)) -> onnx.ModelProto:
    """A trained dense layer, then what `write` makes of its answer `x`; the output is `logits` [N, CLASSES]."""
    build, rng = GraphBuilder({"features", "x"}), np.random.default_rng(1)
    for name, shape in {
        "first": (INPUTS, HIDDEN),
        "first.bias": (HIDDEN,),
        "w": (HIDDEN, CLASSES),
        "w.T": (CLASSES, HIDDEN),
        "b": (CLASSES,),
        "row": (1, CLASSES),
        "square": (HIDDEN, HIDDEN),
        "gain": (HIDDEN,),
    }.items():
        build.parameter(name, rng.standard_normal(shape).astype(np.float32))
    flat = build.op("Flatten", "features") if len(features) > 2 else "features"
    build.op("Gemm", flat, "first", "first.bias", output="x")
    write(build)
    return build.model("chain", [tensor("features", features)], [tensor("logits", ("N", CLASSES))])


def gemm(build: GraphBuilder, x: str, *parameters: str, output: str = "logits", **settings: float) -> str:
    return build.op("Gemm", x, *parameters, output=output, **settings)


def by_matmul(build: GraphBuilder) -> None:
    build.op("Add", "b", build.op("MatMul", build.op("Relu", "x"), "w"), output="logits")


def through_every_activation(build: GraphBuilder) -> None:
    x = build.op("Clip", "x", build.constant(-2.0), build.constant(2.0))
    x = build.op("Sigmoid", build.op("Tanh", x))
    scaled = build.op("Div", build.op("Sub", x, build.constant([0.5] * HIDDEN)), build.constant([[0.3] * HIDDEN]))
    x = gemm(build, scaled, "square", output="")
    x = build.op("Mul", x, build.op("Sigmoid", x))
    gemm(build, build.op("HardSwish", x), "w", "row")


TAKEN: dict[str, Write] = {
    "Gemm": lambda b: gemm(b, b.op("Relu", "x"), "w", "b"),
    "Gemm, transposed": lambda b: gemm(b, b.op("Relu", "x"), "w.T", "row", transB=1),
    "Gemm without bias": lambda b: gemm(b, b.op("Tanh", "x"), "w"),
    "MatMul and Add": by_matmul,
    "a deep one": through_every_activation,
    "skip inside an activation": lambda b: gemm(b, b.op("Mul", "x", b.op("Sigmoid", "x")), "w", "b"),
}


def plain_batch(rows: int, features: tuple[int, ...] = (INPUTS,)) -> Batch:
    rng = np.random.default_rng(5)
    return Batch(
        rng.normal(size=(rows, *features)).astype(np.float32),
        rng.integers(0, CLASSES, rows),
        rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
        rng.random(rows, np.float32),
        rng.uniform(0.5, 2.0, rows).astype(np.float32),
    )


def compiled(model: onnx.ModelProto, *frozen: str) -> TrainStep:
    read = {name for node in model.graph.node for name in node.input}
    stored = {initializer.name for initializer in model.graph.initializer if "constant" not in initializer.name}
    return compile_private_step(
        model,
        input_name="features",
        logits_name="logits",
        trainable=read & stored - set(frozen),
        optimizer="momentum",
    )


@pytest.mark.parametrize("write", TAKEN.values(), ids=TAKEN.keys())
def test_every_dense_chain_is_clipped_row_by_row(write: Write) -> None:
    """The oracle is the plain step on one row at a time, its gradient clipped as a whole."""
    model, batch = chain_of(write, features=("N", 2, 3)), plain_batch(8, (2, 3))
    step = compiled(model)
    theta = theta_of(model, step.layout)
    names = [slot.name for slot in step.layout.slots]
    plain = compile_train_step(
        model, input_name="features", logits_name="logits", trainable=names, optimizer="momentum"
    )
    total = np.zeros_like(theta)
    for row in range(8):
        alone = rows_of(batch, slice(row, row + 1))
        session = OnnxTrainSession(plain.model.SerializeToString(), OptimizerState.fresh(theta, plain.slots))
        session.run(alone, learning_rate=0.1, temperature=TEMPERATURE)
        gradient = float(batch.weight[row]) * session.state.slots["velocity"]
        total += gradient * np.float32(min(1.0, 2.0 / np.linalg.norm(gradient)))
    np.testing.assert_allclose(update(step, theta, batch, 2.0), total, atol=2e-6 * np.abs(total).max())


def normalised(build: GraphBuilder) -> None:
    scale = [build.constant(content) for content in (np.ones(HIDDEN), np.zeros(HIDDEN), np.ones(HIDDEN))]
    gemm(build, build.op("BatchNormalization", "x", scale[0], scale[1], scale[1], scale[2]), "w", "b")


def over_rows(build: GraphBuilder) -> None:
    mean = build.op("ReduceMean", "x", build.constant([0], np.int64), keepdims=1)
    gemm(build, build.op("Sub", "x", mean), "w", "b")


def twice(build: GraphBuilder) -> None:
    x = gemm(build, "x", "square", output="")
    gemm(build, gemm(build, build.op("Relu", x), "square", output=""), "w", "b")


def round_a_layer(build: GraphBuilder) -> None:
    x = build.op("Relu", "x")
    gemm(build, build.op("Add", gemm(build, x, "square", output=""), x), "w", "b")


def turned(build: GraphBuilder) -> None:
    build.op("Add", build.op("MatMul", "x", build.op("Transpose", "w.T", perm=[1, 0])), "b", output="logits")


def one_bias_for_all(build: GraphBuilder) -> None:
    gemm(build, "x", "w", build.parameter("dot", np.ones(1, np.float32)))


def of_words(build: GraphBuilder) -> None:
    words = build.op("Unsqueeze", "x", build.constant([1], np.int64))
    build.op("Squeeze", build.op("MatMul", words, "w"), build.constant([1], np.int64), output="logits")


REFUSED: dict[str, Write] = {
    "BatchNormalization": normalised,
    "ReduceMean": over_rows,
    "Gemm: a private step takes dense": lambda b: gemm(b, gemm(b, "x", "square", output="", transA=1), "w", "b"),
    "Gemm: a row's gradient by square has several parts": twice,
    "Gemm: a private step takes a chain": round_a_layer,
    "Gemm: freeze w": lambda b: gemm(b, "x", "w", "b", alpha=0.5),
    "Mul: freeze gain": lambda b: gemm(b, b.op("Mul", "x", "gain"), "w", "b"),
    "Transpose": turned,
    "Unsqueeze": of_words,
    "Gemm: give dot one element": one_bias_for_all,
}


@pytest.mark.parametrize(("message", "write"), REFUSED.items(), ids=REFUSED.keys())
def test_what_mixes_rows_or_has_other_gradients_is_refused_with_advice(message: str, write: Write) -> None:
    op, _, advice = message.partition(": ")
    with pytest.raises(UnsupportedOpError) as refusal:
        compiled(chain_of(write))
    assert refusal.value.op == op
    assert refusal.value.node
    assert refusal.value.advice.startswith(advice or "a private step takes dense layers")


def test_a_convolution_is_refused_with_the_way_out() -> None:
    cnn = build_family("cnn-s", (1, 8, 8), CLASSES, seed=0)
    with pytest.raises(UnsupportedOpError, match="end the backbone behind it"):
        compiled(ForwardModel(cnn.model, features="").tail())


def test_torchs_per_sample_gradients_clip_to_the_same_sum() -> None:
    """An oracle that we did not write: vmap(grad)."""
    torch = pytest.importorskip("torch", reason="torch is not installed: this oracle is optional")
    functional = torch.nn.functional
    tail = dense_tail(*WIDTHS)
    batch = tail.batch(24, seed=3)
    layers = {name: torch.tensor(content.copy()) for name, content in split_theta(tail.theta, tail.step.layout).items()}

    def loss(parameters: dict, x: object, label: object, target: object, alpha: object, weight: object) -> object:
        for index in range(3):
            x = torch.relu(x) if index else x
            x = x @ parameters[f"weight{index}"] + parameters[f"bias{index}"]
        hard = functional.cross_entropy(x, label)
        soft = functional.cross_entropy(x / TEMPERATURE, target)
        return weight * (alpha * hard + (1 - alpha) * TEMPERATURE**2 * soft)

    rows = [
        torch.tensor(a) for a in (tail.numbers(batch.features), batch.labels, batch.targets, batch.alpha, batch.weight)
    ]
    by_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0, 0))(layers, *rows)
    flat = torch.cat([by_row[slot.name].reshape(24, -1) for slot in tail.step.layout.slots], dim=1)
    factors = torch.clamp(2.0 / flat.norm(dim=1), max=1.0)
    expected = (flat * factors[:, None]).sum(0).numpy()
    found = update(private(tail), tail.theta, batch, 2.0)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
