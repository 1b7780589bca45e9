"""An int8 backbone says what the float one says, and its tail reads its integers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization.calibrate import CalibrationDataReader
from onnxruntime.quantization.quant_utils import QuantType, add_pre_process_metadata
from onnxruntime.quantization.quantize import quantize_static

from fd_runtime.models.onnx_model import OnnxBackbone
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.graph import GraphError
from model_export.quantisation import QuantisationTerms, QuantisedModel, quantise
from model_export.quantisation.folding import fold_batch_norm
from tests.support.networks import run


@pytest.fixture(scope="module")
def forward() -> ForwardModel:
    return build_family("cnn-s", (1, 12, 12), 5, seed=0)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(0).random((150, 1, 12, 12), np.float32)


@pytest.fixture(scope="module")
def quantised(forward: ForwardModel, samples: np.ndarray) -> QuantisedModel:
    return quantise(forward, samples)


def test_the_backbone_emits_integers_that_stand_for_the_float_features(
    forward: ForwardModel, quantised: QuantisedModel, samples: np.ndarray
) -> None:
    integers = OnnxBackbone(quantised.backbone.SerializeToString()).extract(samples)
    assert (integers.dtype, integers.shape) == (np.uint8, (150, 64))
    numbers = (integers.astype(np.float32) - quantised.zero_point) * quantised.scale
    exact = run(forward.backbone(), samples)
    assert np.abs(numbers - exact).mean() < 0.02 * exact.max()


def test_both_parts_together_answer_as_the_float_model(
    forward: ForwardModel, quantised: QuantisedModel, samples: np.ndarray
) -> None:
    logits, exact = run(quantised.tail, run(quantised.backbone, samples)), run(forward.model, samples)
    assert np.sqrt(np.mean((logits - exact) ** 2)) < 0.1 * exact.std()
    assert (logits.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95


def test_the_tail_begins_with_the_backbones_scale(quantised: QuantisedModel) -> None:
    first, *others = quantised.tail.graph.node
    assert first.op_type == "DequantizeLinear"
    assert "DequantizeLinear" not in {node.op_type for node in others}
    content = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.tail.graph.initializer}
    assert [float(content[first.input[1]]), int(content[first.input[2]])] == [quantised.scale, quantised.zero_point]
    last = quantised.backbone.graph.node[-1]
    assert (last.op_type, list(last.output)) == ("QuantizeLinear", ["features"])


def test_the_tail_keeps_the_parameters_in_order(forward: ForwardModel, quantised: QuantisedModel) -> None:
    names = [t.name for t in quantised.tail.graph.initializer]
    assert names[:4] == [t.name for t in forward.tail().graph.initializer]


def test_weights_are_int8_for_each_channel(quantised: QuantisedModel) -> None:
    """But for the first convolution, which has one channel to read."""
    content = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.backbone.graph.initializer}
    codes = {name: c for name, c in content.items() if c.dtype == np.int8 and c.ndim > 1}
    assert codes.keys() == {"conv2.weight.codes", "embed.weight.codes"}
    assert (content["conv1.weight"].dtype, content["conv1.weight"].shape) == (np.float32, (8, 1, 3, 3))
    assert [content[f"{name}.weight.scale"].shape for name in ("conv2", "embed")] == [(16,), (64,)]


def test_a_reduced_range_leaves_one_bit_free(forward: ForwardModel, samples: np.ndarray) -> None:
    model = quantise(forward, samples, QuantisationTerms(reduce_range=True)).backbone
    content = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    assert max(np.abs(c.astype(int)).max() for c in content if c.dtype == np.int8) <= 64


def test_the_same_samples_give_the_same_bytes(
    forward: ForwardModel, quantised: QuantisedModel, samples: np.ndarray
) -> None:
    again = quantise(forward, samples)
    for first, second in ((quantised.backbone, again.backbone), (quantised.tail, again.tail)):
        digests = {hashlib.sha256(model.SerializeToString()).digest() for model in (first, second)}
        assert len(digests) == 1


def test_no_trace_of_the_tool_is_shipped(quantised: QuantisedModel) -> None:
    for model in (quantised.backbone, quantised.tail):
        assert not model.metadata_props
        assert model.producer_name == "fedistill"
        assert not model.graph.value_info
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_a_model_without_backbone_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(GraphError, match="no backbone"):
        quantise(build_family("mlp-s", (1, 12, 12), 5, seed=0), samples)


@pytest.mark.parametrize("family", ["cnn-s", "dw-s"])
def test_it_is_as_close_to_float_as_onnxruntimes_own_quantiser(family: str, tmp_path: Path) -> None:
    forward = build_family(family, (4, 16, 16), 5, seed=1)
    x = np.random.default_rng(0).random((100, 4, 16, 16), np.float32)
    exact, ours = run(forward.backbone(), x), quantise(forward, x)
    stock = run(stock_int8(fold_batch_norm(forward.backbone()), x, tmp_path), x)
    numbers = (run(ours.backbone, x).astype(np.float32) - ours.zero_point) * ours.scale
    assert np.mean((numbers - exact) ** 2) < 1.1 * np.mean((stock - exact) ** 2)


def stock_int8(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> onnx.ModelProto:
    class Reader(CalibrationDataReader):
        batches = iter([{"input": x}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    add_pre_process_metadata(model)
    quantize_static(
        model,
        folder / "stock.onnx",
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(folder / "stock.onnx")


def test_without_a_method_the_model_is_only_cut(forward: ForwardModel, samples: np.ndarray) -> None:
    model = quantise(forward, samples, QuantisationTerms("none"))
    assert (model.features.shape, model.features.dtype) == ((64,), "float32")
    np.testing.assert_allclose(run(model.tail, run(model.backbone, samples)), run(forward.model, samples), atol=1e-5)


def test_no_more_samples_count_than_the_terms_say(forward: ForwardModel, samples: np.ndarray) -> None:
    few = quantise(forward, samples, QuantisationTerms(calibration_rows=10))
    assert few.backbone == quantise(forward, samples[:10]).backbone != quantise(forward, samples).backbone
