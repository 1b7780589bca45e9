"""A layer that bears int8 badly is found, and leaves it alone for a stated loss."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from model_export.forward import ForwardModel
from model_export.quantisation import QuantisationTerms, ToleranceError, layer_sensitivity, quantise
from model_export.quantisation.differences import Difference
from model_export.quantisation.sensitivity import SensitivityReport
from tests.support.networks import Network, run

CLASSES, CHANNELS = 6, 8


def samples(rows: int = 150) -> np.ndarray:
    return np.random.default_rng(3).random((rows, 4, 10, 10), np.float32)


def network_with_a_bad_layer() -> ForwardModel:
    """Four convolutions; the third has great weights for a channel that is always zero.

    In float they mean nothing. In int8 they take the whole range, and leave no code for the weights that count.
    """
    network = Network(seed=2)
    first = network.op("Relu", network.convolution("input", (CHANNELS, 4, 3, 3)))
    silent = network.op("Clip", first, network.build.constant(0.0), network.build.constant(100.0))
    weights = np.array(network.rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 6, np.float32)
    weights[:, 0] *= 1000
    gate = np.ones((1, CHANNELS, 1, 1), np.float32)
    gate[0, 0] = 0
    x = network.op("Relu", network.convolution(silent, (CHANNELS, CHANNELS, 3, 3)))
    x = network.op("Mul", x, network.build.parameter("gate", gate))
    bad = network.build.parameter("bad.weights", weights)
    network.build.scope = "bad/"
    x = network.op("Relu", network.op("Conv", x, bad, pads=[1] * 4))
    network.build.scope = ""
    x = network.op("Relu", network.convolution(x, (CHANNELS, CHANNELS, 3, 3)))
    features = network.op("Flatten", network.op("GlobalAveragePool", x))
    logits = network.op("Gemm", features, network.weights(CHANNELS, CLASSES, scale=20), network.weights(CLASSES))
    return ForwardModel(network.model(logits, (CLASSES,), (4, 10, 10)), features)


@pytest.fixture(scope="module")
def forward() -> ForwardModel:
    return network_with_a_bad_layer()


def test_without_a_tolerance_nobody_looks(forward: ForwardModel) -> None:
    quantised = quantise(forward, samples())
    assert (quantised.report, quantised.float_layers) == (None, ())


def test_the_bad_layer_leads_the_report(forward: ForwardModel) -> None:
    report = layer_sensitivity(forward, samples())
    first, second, *_ = report.rows
    assert (len(report.rows), first.layer, first.op) == (4, "bad/Conv", "Conv")
    assert first.difference.rmse > 5 * second.difference.rmse
    assert first.difference.agreement < min(row.difference.agreement for row in report.rows[1:])
    assert report.together.rmse > second.difference.rmse
    head, *lines, last = report.table().splitlines()
    assert head.split() == ["int8", "op", "rmse", "agreement", "kl", "accuracy"]
    assert [line.split()[0] for line in lines] == [row.layer for row in report.rows]
    assert last.startswith("all layers")


def test_just_the_bad_layer_stays_float(forward: ForwardModel) -> None:
    x = samples()
    quantised = quantise(forward, x, QuantisationTerms(tolerance=0.05))
    assert quantised.float_layers == ("bad/Conv",)
    answers, exact = run(quantised.tail, run(quantised.backbone, x)).argmax(1), run(forward.model, x).argmax(1)
    assert (answers == exact).mean() >= 0.95
    stored = {each.name: each.data_type for each in quantised.backbone.graph.initializer}
    assert stored["bad.weights"] == onnx.TensorProto.FLOAT
    assert sum(data_type == onnx.TensorProto.INT8 for data_type in stored.values()) >= 3


def test_with_labels_a_tolerance_is_about_accuracy(forward: ForwardModel) -> None:
    """Labels that the int8 model gives: it changes many answers, and loses no accuracy by it."""
    x, terms = samples(), QuantisationTerms(tolerance=0.05)
    all_int8 = quantise(forward, x)
    labels = run(all_int8.tail, run(all_int8.backbone, x)).argmax(1).astype(np.int64)
    assert quantise(forward, x, terms, labels).float_layers == ()
    true = run(forward.model, x).argmax(1).astype(np.int64)
    assert quantise(forward, x, terms, true).float_layers == ("bad/Conv",)


def test_the_same_samples_spare_the_same_layers(forward: ForwardModel) -> None:
    first, second = (quantise(forward, samples(), QuantisationTerms(tolerance=0.0)) for _ in range(2))
    assert first.report == second.report == layer_sensitivity(forward, samples())
    assert first.float_layers == second.float_layers
    assert first.backbone.SerializeToString() == second.backbone.SerializeToString()


def test_a_tolerance_that_the_features_codes_break_is_refused() -> None:
    """One feature is so large that the codes of the others are all alike."""
    network = Network()
    identity = network.build.parameter("identity", np.eye(5, dtype=np.float32))
    features = network.op("Gemm", "input", identity, network.vector(1e4, 0, 0, 0, 0))
    weights = np.array(network.rng.standard_normal((5, CLASSES)), np.float32)
    weights[0] = 0
    logits = network.op("MatMul", features, network.build.parameter("head", weights))
    forward = ForwardModel(network.model(logits, (CLASSES,), (5,)), features)
    x = np.random.default_rng(0).random((100, 5), np.float32)
    with pytest.raises(ToleranceError, match="is allowed") as caught:
        quantise(forward, x, QuantisationTerms(tolerance=0.1))
    assert caught.value.loss > caught.value.tolerance == 0.1


def test_differences_are_those_of_the_definitions() -> None:
    exact = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
    logits = np.array([[2.0, 0.0], [1.0, 0.0]], np.float32)
    difference = Difference.between(exact, logits, np.array([0, 1]))
    p, q = 1 / (1 + np.e), np.e / (1 + np.e)
    assert difference.rmse == pytest.approx(np.sqrt(2 / 4))
    assert (difference.agreement, difference.accuracy_loss, difference.loss) == (0.5, 0.5, 0.5)
    assert difference.kl == pytest.approx((p * np.log(p / q) + q * np.log(q / p)) / 2)
    assert Difference.between(exact, logits).loss == 0.5


def test_a_report_of_no_layers_has_the_line_for_all() -> None:
    lines = SensitivityReport((), Difference(0.0, 1.0, 0.0, None)).table().splitlines()
    assert [line.split()[0] for line in lines] == ["int8", "all"]
