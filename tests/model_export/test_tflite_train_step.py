"""A train step in TFLite takes the step that it takes on onnxruntime, in both runtimes, whatever layers it trains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest

from fd_runtime.artifacts import TfliteRuntime
from fd_runtime.models.onnx_model import OnnxTail
from model_export.families import build_family
from model_export.forward import FEATURES, ForwardModel
from model_export.graph import GraphBuilder, tensor
from model_export.planning.selection import parse_layers, select
from model_export.quantisation import QuantisationTerms, quantise
from model_export.surgery import theta_of
from model_export.tflite import lower_tail, lower_train_step
from model_export.trainstep import TrainStep, compile_train_step
from tests.support.tflite_interpreters import RUNTIMES, Arrays, run_tflite

ROWS, CLASSES, VOCABULARY = 8, 10, 50
DENSE_TOLERANCE, CONVOLUTION_TOLERANCE = 1e-5, 1e-3
"""Largest difference, relative to a tensor's largest element. A convolution has pre-activations by the thousand, and
one that lies on the border of a Relu may fall to either side; measured without such a one: 3e-6."""


@dataclass(frozen=True)
class Tail:
    """What a device trains, with its train step."""

    model: onnx.ModelProto
    step: TrainStep
    tolerance: float

    @property
    def theta(self) -> np.ndarray:
        return theta_of(self.model, self.step.layout)

    def feed(self, seed: int) -> Arrays:
        """One step's inputs, from a theta of its own."""
        rng = np.random.default_rng(seed)
        theta = self.theta * np.float32(1 + 0.1 * seed)
        given = {
            FEATURES: features_for(self.model, rng),
            "labels": rng.integers(0, CLASSES, ROWS),
            "targets": rng.dirichlet(np.ones(CLASSES), ROWS).astype(np.float32),
            "alpha": rng.random(ROWS, np.float32),
            "weight": rng.random(ROWS, np.float32),
            "theta": theta,
            "reference": theta * np.float32(0.9),
            **{slot: 1e-3 * rng.random(theta.size, np.float32) for slot in self.step.slots},
        }
        scalars = {"learning_rate": 1e-2, "temperature": 2.0, "prox": 0.1, "max_norm": 1.0, "step": 3.0}
        return given | {name: np.array(value, np.float32) for name, value in scalars.items()}


def features_for(model: onnx.ModelProto, rng: np.random.Generator) -> np.ndarray:
    kind = model.graph.input[0].type.tensor_type
    shape = (ROWS, *(extent.dim_value for extent in kind.shape.dim[1:]))
    if kind.elem_type == onnx.TensorProto.UINT8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind.elem_type == onnx.TensorProto.INT32:
        return rng.integers(0, VOCABULARY, shape, dtype=np.int32)
    return rng.normal(size=shape).astype(np.float32)


@cache
def tail_of(family: str, shape: tuple[int, ...], layers: str, optimizer: str, *, int8: bool = True) -> Tail:
    if family in WRITTEN:
        forward = WRITTEN[family](shape)
    else:
        forward = build_family(family, shape, CLASSES, seed=0, vocabulary=VOCABULARY if len(shape) == 1 else None)
    plan = select(forward, parse_layers(layers), batch_rows=ROWS, optimizer=optimizer, int8=int8)
    samples = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    terms = QuantisationTerms(method="minmax" if int8 else "none")
    tail = quantise(plan.forward, samples, terms).tail if plan.forward.features else plan.forward.tail()
    step = compile_train_step(
        tail,
        input_name=FEATURES,
        logits_name="logits",
        trainable=plan.trainable,
        optimizer=optimizer,
        with_gradient=True,
        batch_rows=ROWS,
    )
    is_dense = not {"Conv", "GRU"} & {node.op_type for node in tail.graph.node}
    return Tail(tail, step, DENSE_TOLERANCE if is_dense else CONVOLUTION_TOLERANCE)


def network_of_groups(shape: tuple[int, ...]) -> ForwardModel:
    """Convolutions with GroupNorm as torch writes it, InstanceNorm and Softplus."""
    build, (channels, rows, columns) = GraphBuilder({"x", "logits"}), shape
    first = build.op("Conv", "x", parameter(build, "first", 8, channels, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    groups = build.op("Reshape", first, build.constant([0, 2, -1], np.int64))
    normal = build.op("InstanceNormalization", groups, build.constant(np.ones(2)), build.constant(np.zeros(2)))
    back = build.op("Reshape", normal, build.constant([-1, 8, rows // 2, columns // 2], np.int64))
    scaled = build.op("Mul", back, parameter(build, "groups.scale", 8, 1, 1))
    second = build.op("Conv", build.op("Softplus", scaled), parameter(build, "second", 6, 8, 3, 3))
    scale, bias = (parameter(build, f"instances.{name}", 6) for name in ("scale", "bias"))
    third = build.op("Softplus", build.op("InstanceNormalization", second, scale, bias))
    pooled = build.op("Flatten", build.op("GlobalAveragePool", third))
    build.op("Gemm", pooled, parameter(build, "head", 6, CLASSES), output="logits")
    return written("groups", build, shape)


def network_of_attention(shape: tuple[int, ...]) -> ForwardModel:
    """One head of attention and a dense layer for each place; in its Reshape, shape inference loses the batch."""
    build, (places, width) = GraphBuilder({"x", "logits"}), shape
    rows = build.op("Reshape", "x", build.constant([-1, width], np.int64))
    keys = build.op("Gemm", rows, parameter(build, "keys", width, width))
    apart = build.op("Reshape", keys, build.constant([-1, places, width], np.int64))
    scores = build.op("Softmax", build.op("MatMul", apart, build.op("Transpose", apart, perm=[0, 2, 1])))
    mixed = build.op("MatMul", scores, apart)
    hidden = build.op("Softplus", build.op("MatMul", mixed, parameter(build, "hidden", width, 16)))
    pooled = build.op("ReduceMean", hidden, build.constant([1], np.int64), keepdims=0)
    build.op("Gemm", pooled, parameter(build, "head", 16, CLASSES), output="logits")
    return written("attention", build, shape)


def parameter(build: GraphBuilder, name: str, *shape: int) -> str:
    rng = np.random.default_rng(len(name))
    return build.parameter(name, 0.5 * rng.normal(size=shape).astype(np.float32))


def written(name: str, build: GraphBuilder, shape: tuple[int, ...]) -> ForwardModel:
    model = build.model(name, [tensor("x", ("N", *shape))], [tensor("logits", ("N", CLASSES))])
    return ForwardModel(model, "")


WRITTEN = {"groups": network_of_groups, "attention": network_of_attention}
PICTURES, SIGNALS, TOKENS = (1, 12, 12), (6, 32), (9,)
TAILS = {
    "a dense head with adam": ("cnn-s", PICTURES, "head", "adam"),
    "a dense head with momentum": ("cnn-s", PICTURES, "head", "momentum"),
    "a dense network with sgd": ("mlp-s", PICTURES, "everything", "sgd"),
    "a convolution under a dense head, on int8 features": ("cnn-s", PICTURES, "last 3", "momentum"),
    "a whole network of convolutions": ("cnn-s", PICTURES, "everything", "adam"),
    "an inverted residual block, on int8 features": ("dw-s", PICTURES, "last 3", "momentum"),
    "a whole network of inverted residual blocks": ("dw-s", PICTURES, "everything", "sgd"),
    "biases of a network of convolutions": ("cnn-s", PICTURES, "biases", "adam"),
    "a whole network of convolutions over signals": ("conv1d-s", SIGNALS, "everything", "momentum"),
    "embedding and causal convolutions": ("causal-s", TOKENS, "everything", "adam"),
    "embedding and gated recurrent unit": ("gru-s", TOKENS, "everything", "adam"),
    "a whole network of groups and instances": ("groups", PICTURES, "everything", "adam"),
    "a dense layer under the head, on int8 features of attention": ("attention", (5, 8), "last 2", "momentum"),
    "a whole network of attention": ("attention", (5, 8), "everything", "sgd"),
}


def stored(name: str, array: np.ndarray) -> np.ndarray:
    """An input as TFLite stores it: codes with their top bit flipped, labels in 32 bits."""
    if array.dtype == np.uint8:
        return (array ^ np.uint8(0x80)).view(np.int8)
    return array.astype(np.int32) if name == "labels" else array


def run_onnx(model: onnx.ModelProto, feed: Arrays) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in model.graph.output]
    read = {value.name for value in model.graph.input}
    return dict(zip(names, session.run(names, {n: a for n, a in feed.items() if n in read}), strict=True))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("terms", TAILS.values(), ids=TAILS.keys())
def test_a_step_is_that_of_onnxruntime(terms: tuple, runtime: TfliteRuntime) -> None:
    tail = tail_of(*terms)
    feeds = [tail.feed(seed) for seed in (0, 1)]
    content = lower_train_step(tail.step.model, ROWS)
    found = run_tflite(runtime, content, [{name: stored(name, a) for name, a in feed.items()} for feed in feeds])
    for outputs, feed in zip(found, feeds, strict=True):
        expected = run_onnx(tail.step.model, feed)
        assert outputs.keys() == expected.keys()
        assert np.abs(expected["gradient"]).max() > 1e-4  # the comparison is about something
        for name, array in expected.items():
            apart = np.abs(outputs[name] - array).max() / np.abs(array).max()
            assert apart < tail.tolerance, f"{name} is {apart:.1e} apart"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("terms", TAILS.values(), ids=TAILS.keys())
def test_a_tail_answers_with_the_theta_that_it_is_given(terms: tuple, runtime: TfliteRuntime) -> None:
    tail = tail_of(*terms)
    content, rng = lower_tail(tail.model, tail.step.layout), np.random.default_rng(1)
    features, reference = features_for(tail.model, rng), OnnxTail(tail.model.SerializeToString(), tail.step.layout)
    for rows, scale in ((1, 1.0), (ROWS, 1.3)):
        theta = tail.theta * np.float32(scale)
        reference.load(theta)
        feed = {"features": stored("features", features[:rows]), "theta": theta}
        (found,) = run_tflite(runtime, content, [feed])
        expected = reference.logits(features[:rows])
        np.testing.assert_allclose(found["logits"], expected, atol=1e-4 * np.abs(expected).max())
