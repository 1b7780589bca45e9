"""Static int8 says what float says, and runs on integers where it claims to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.quantisation import QuantisationTerms, quantise
from model_export.quantisation.folding import fold_batch_norm
from model_export.quantisation.quantisable import Quantisable
from tests.support.networks import Network, optimised_operators, run

TERMS = QuantisationTerms()


def pictures(channels: int, rows: int = 64) -> np.ndarray:
    return np.random.default_rng(5).random((rows, channels, 12, 12), np.float32)


def in_codes(model: onnx.ModelProto, x: np.ndarray) -> tuple[onnx.ModelProto, np.ndarray]:
    """All layers on integers, and the numbers that its codes stand for."""
    quantisable = Quantisable.of(model, x, TERMS)
    quantised, scaling = quantisable.with_codes(quantisable.layers)
    return quantised, scaling.numbers(run(quantised, x))


def error(model: onnx.ModelProto, x: np.ndarray) -> float:
    """Root mean square of the difference, in standard deviations of the float model's output."""
    exact, (_, numbers) = run(model, x), in_codes(model, x)
    return float(np.sqrt(np.mean((numbers - exact) ** 2)) / exact.std())


@pytest.mark.parametrize("layer", ["Conv", "Conv depthwise", "Conv 1-D", "Gemm", "Gemm transposed"])
def test_folding_batch_norm_changes_nothing(layer: str) -> None:
    network = Network()
    x = np.random.default_rng(1).standard_normal((20, 6, 9, 9)).astype(np.float32)
    shape: tuple[int, ...] = (6, 9, 9)
    if layer == "Conv":
        y = network.convolution("input", (6, 6, 3, 3))
    elif layer == "Conv depthwise":
        y = network.op("Conv", "input", network.weights(6, 1, 3, 3), pads=[1] * 4, group=6)
    elif layer == "Conv 1-D":
        x, shape = x[:, :, 0], (6, 9)
        y = network.convolution("input", (6, 6, 3))
    else:
        x, shape = x[:, :, 0, 0], (6,)
        y = network.op("Gemm", "input", network.weights(6, 6), network.weights(6), transB=int("trans" in layer))
    model = network.model(network.op("Relu", network.normalised(y, 6)), shape, x.shape[1:])
    folded = fold_batch_norm(model)
    assert [node.op_type for node in folded.graph.node] == [layer[:4], "Relu"]
    np.testing.assert_allclose(run(folded, x), run(model, x), atol=1e-5)


def test_batch_norm_folds_into_a_layer_whose_bias_is_named_as_absent() -> None:
    network = Network()
    y = network.op("Conv", "input", network.weights(6, 6, 3, 3), "", pads=[1] * 4)
    model = network.model(network.op("Relu", network.normalised(y, 6)), (6, 9, 9), (6, 9, 9))
    folded = fold_batch_norm(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
    x = np.random.default_rng(1).standard_normal((20, 6, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(run(folded, x), run(model, x), atol=1e-5)


def test_batch_norm_stays_where_others_read_what_it_normalises() -> None:
    network = Network()
    y = network.convolution("input", (4, 4, 3, 3))
    model = network.model(network.op("Add", y, network.normalised(y, 4)), (4, 12, 12), (4, 12, 12))
    assert [node.op_type for node in fold_batch_norm(model).graph.node] == ["Conv", "BatchNormalization", "Add"]
    assert error(model, pictures(4)) < 0.02


@pytest.mark.parametrize(
    ("family", "shape", "convolutions"),
    [("cnn-s", (1, 28, 28), 1), ("cnn-m", (4, 16, 16), 2), ("dw-s", (3, 16, 16), 13), ("conv1d-s", (6, 32), 2)],
)
def test_convolutions_run_on_integers(family: str, shape: tuple[int, ...], convolutions: int, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).random((50, *shape), np.float32)
    operators = optimised_operators(quantise(build_family(family, shape, 5, seed=0), samples).backbone, tmp_path)
    thin = int(shape[0] < 4)
    assert (operators["QLinearConv"], operators["Conv"]) == (convolutions, thin)
    assert operators["QuantizeLinear"] == 1  # where integers begin
    assert operators.keys().isdisjoint({"DequantizeLinear", "Gemm", "FusedGemm", "Add", "Relu", "Clip"})


def test_a_float_layer_takes_its_maximum_in_float(tmp_path: Path) -> None:
    """The uint8 kernel for it is ten times slower before integers have begun; onnxruntime would choose it."""
    samples = np.random.default_rng(0).random((50, 1, 28, 28), np.float32)
    operators = list(
        optimised_operators(quantise(build_family("cnn-s", (1, 28, 28), 5, seed=0), samples).backbone, tmp_path)
    )
    assert operators.index("MaxPool") < operators.index("QuantizeLinear") < operators.index("QLinearConv")


def test_a_residual_block_runs_on_integers(tmp_path: Path) -> None:
    network = Network()
    x = network.op("Relu", network.convolution("input", (8, 4, 3, 3)))
    y = network.op("Relu", network.normalised(network.convolution(x, (8, 8, 3, 3)), 8))
    y = network.op("Relu", network.op("Add", network.convolution(y, (8, 8, 3, 3)), x))
    model = network.model(network.op("Flatten", network.op("GlobalAveragePool", y)), (8,), (4, 12, 12))
    quantised, _ = in_codes(model, pictures(4))
    operators = optimised_operators(quantised, tmp_path)
    assert (operators["QLinearConv"], operators["QLinearAdd"], operators["QLinearGlobalAveragePool"]) == (3, 1, 1)
    assert "Relu" not in operators
    assert error(model, pictures(4)) < 0.03


def test_numbers_pass_in_float_through_what_has_no_integers(tmp_path: Path) -> None:
    network = Network()
    y = network.op("HardSwish", network.convolution("input", (8, 4, 3, 3)))
    model = network.model(network.op("HardSwish", network.convolution(y, (8, 8, 3, 3))), (8, 12, 12), (4, 12, 12))
    quantised, _ = in_codes(model, pictures(4))
    operators = optimised_operators(quantised, tmp_path)
    assert operators["QLinearConv"] == 2
    assert operators["HardSigmoid"] == 2  # times its input: onnxruntime knows HardSwish as these two
    assert error(model, pictures(4)) < 0.03


def test_attention_runs_on_integers(tmp_path: Path) -> None:
    network = Network()
    query, key, value = (network.op("MatMul", "input", network.weights(8, 8)) for _ in range(3))
    scores = network.op("MatMul", query, network.op("Transpose", key, perm=[0, 2, 1]))
    model = network.model(network.op("MatMul", network.op("Softmax", scores), value), (6, 8), (6, 8))
    x = np.random.default_rng(0).standard_normal((60, 6, 8)).astype(np.float32)
    quantised, _ = in_codes(model, x)
    operators = optimised_operators(quantised, tmp_path)
    assert "MatMul" not in operators
    assert sum(count for name, count in operators.items() if name.startswith(("QLinearMatMul", "MatMulInteger"))) == 5
    assert error(model, x) < 0.05


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-0.5, 0.5), (0.25, 1.0)])
def test_a_clip_keeps_its_bounds(bounds: tuple[float, float]) -> None:
    network = Network()
    y = network.op("Clip", network.convolution("input", (8, 4, 3, 3)), *map(network.build.constant, bounds))
    model = network.model(network.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), (8, 6, 6), (4, 12, 12))
    _, numbers = in_codes(model, pictures(4))
    assert bounds[0] - 0.01 <= numbers.min() < numbers.max() <= bounds[1] + 0.01
    assert error(model, pictures(4)) < 0.03


def test_what_only_moves_codes_keeps_their_scaling() -> None:
    """A maximum sees a narrower range than the convolution before it; a scale of its own would cost a rescaling."""
    network = Network()
    y = network.op("MaxPool", network.convolution("input", (8, 4, 3, 3)), kernel_shape=[3, 3], strides=[3, 3])
    model = network.model(network.op("Flatten", y), (128,), (4, 12, 12))
    quantised, _ = in_codes(model, pictures(4))
    _, *behind = [node for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.name.split("/")[0][:7] for node in behind] == ["Conv.0", "MaxPool", "Flatten"]
    assert len({tuple(node.input[1:]) for node in behind}) == 1


def test_a_relu_that_others_bypass_stays() -> None:
    network = Network()
    y = network.convolution("input", (8, 4, 3, 3))
    model = network.model(network.op("Concat", network.op("Relu", y), y, axis=1), (16, 12, 12), (4, 12, 12))
    assert error(model, pictures(4)) < 0.02


def test_features_in_float_keep_their_relu() -> None:
    network = Network()
    model = network.model(network.op("Relu", network.convolution("input", (8, 4, 3, 3))), (8, 12, 12), (4, 12, 12))
    quantisable = Quantisable.of(model, pictures(4), TERMS)
    numbers = run(quantisable.with_numbers(quantisable.layers), pictures(4))
    assert numbers.min() == 0.0
    assert len(np.unique(numbers)) > 256


def test_weights_that_two_layers_share_are_right_in_both() -> None:
    network = Network()
    weights, bias = network.weights(4, 4, 3, 3), network.weights(4, scale=0.1)
    y = network.op("Relu", network.op("Conv", "input", weights, bias, pads=[1] * 4))
    y = network.op("Conv", y, weights, bias, pads=[1] * 4)
    assert error(network.model(y, (4, 12, 12), (4, 12, 12)), pictures(4)) < 0.02


def test_a_dense_layer_in_another_form_stays_float() -> None:
    network = Network()
    y = network.op("Gemm", "input", network.weights(6, 5), alpha=0.5)
    model = network.model(network.op("Gemm", y, network.weights(5, 3), network.weights(1)), (3,), (6,))
    x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    assert len(Quantisable.of(model, x, TERMS).layers) == 1
    assert error(model, x) < 0.02


def test_tokens_are_looked_up_in_codes() -> None:
    forward = build_family("causal-s", (16,), 50, seed=0, vocabulary=50)
    tokens = np.random.default_rng(0).integers(0, 50, (100, 16)).astype(np.int32)
    quantised = quantise(forward, tokens)
    assert len(quantised.backbone.SerializeToString()) < 0.4 * len(forward.backbone().SerializeToString())
    logits, exact = run(quantised.tail, run(quantised.backbone, tokens)), run(forward.model, tokens)
    assert np.sqrt(np.mean((logits - exact) ** 2)) < 0.04 * exact.std()


@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 9)])
def test_features_may_be_maps_or_sequences(shape: tuple[int, ...]) -> None:
    network = Network()
    features = network.op("Relu", network.convolution("input", (4, 4, *[3] * (len(shape) - 1))))
    logits = network.op("Gemm", network.op("Flatten", features), network.weights(int(np.prod(shape)), 3))
    forward = ForwardModel(network.model(logits, (3,), shape), features)
    x = np.random.default_rng(0).random((30, *shape), np.float32)
    quantised = quantise(forward, x)
    assert (quantised.features.shape, quantised.features.dtype) == (shape, "uint8")
    codes = run(quantised.backbone, x)
    assert (codes.dtype, codes.shape) == (np.uint8, (30, *shape))
    exact = run(forward.model, x)
    assert np.sqrt(np.mean((run(quantised.tail, codes) - exact) ** 2)) < 0.03 * exact.std()
