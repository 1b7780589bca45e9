"""Ranges come from all values, from all but the outermost, or from what loses the least information."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from model_export.graph import GraphBuilder, tensor
from model_export.quantisation.calibration import calibrate, entropy_range, percentile_range
from model_export.quantisation.codes import Scaling
from model_export.quantisation.terms import Method, QuantisationTerms

WIDTH = 7


@pytest.fixture(scope="module")
def shifted() -> onnx.ModelProto:
    """input -> input + 1 -> Relu."""
    build = GraphBuilder({"input"})
    build.op("Relu", build.op("Add", "input", build.constant(1.0), output="shifted"), output="rectified")
    return build.model("shifted", [tensor("input", ("N", WIDTH))], [tensor("rectified", ("N", WIDTH))])


def samples(rows: int = 203) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (rows, WIDTH)).astype(np.float32)


def test_minmax_covers_all_that_was_seen_in_every_float_tensor(shifted: onnx.ModelProto) -> None:
    x = samples()
    scalings = calibrate(shifted, x, QuantisationTerms())
    low, high = float(x.min()), float(x.max())
    assert scalings == {
        "input": Scaling.of_range(low, high),
        "shifted": Scaling.of_range(float((x + 1).min()), float((x + 1).max())),
        "rectified": Scaling.of_range(0.0, float((x + 1).max())),
    }


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_an_outlier_does_not_decide_a_range(shifted: onnx.ModelProto, method: Method) -> None:
    x = samples(2000)
    x[0, 0] = 1000.0
    narrow, wide = (calibrate(shifted, x, QuantisationTerms(each, percentile=99.9)) for each in (method, "minmax"))
    assert narrow["input"].scale < 0.5 * wide["input"].scale


def test_a_percentile_leaves_its_share_out_at_both_ends() -> None:
    values = np.random.default_rng(1).normal(0, 1, 1_000_000)
    extremes = float(values.min()), float(values.max())
    counts = np.histogram(values, 2048, extremes)[0]
    np.testing.assert_allclose(percentile_range(counts, extremes, 99.0), np.percentile(values, [1, 99]), atol=0.01)
    np.testing.assert_allclose(percentile_range(counts, extremes, 100.0), extremes)


def test_a_percentile_of_rectified_values_begins_at_zero(shifted: onnx.ModelProto) -> None:
    assert calibrate(shifted, samples(), QuantisationTerms("percentile", percentile=95.0))["rectified"].zero_point == 0


def test_entropy_keeps_the_whole_range_of_values_that_fill_it() -> None:
    extremes = (-1.0, 1.0)
    counts = np.histogram(np.random.default_rng(0).uniform(-1, 1, 1_000_000), 2048, extremes)[0]
    low, high = entropy_range(counts, extremes)
    assert low < -0.95
    assert high > 0.95


def test_a_value_that_comes_again_and_again_does_not_narrow_an_entropy_range() -> None:
    """A picture's background must not pay for its precision with all that is seen before it."""
    counts = np.histogram(np.random.default_rng(0).uniform(-1, 1, 1_000_000), 2048, (-1.0, 1.0))[0]
    counts[1300] += 10_000_000
    low, high = entropy_range(counts, (-1.0, 1.0))
    assert low < -0.9
    assert high > 0.9


def test_a_constant_tensor_has_an_entropy_range() -> None:
    assert entropy_range(np.array([5, 0]), (2.0, 2.0)) == (2.0, 2.0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_missing_values_are_passed_over(shifted: onnx.ModelProto, method: Method) -> None:
    x = samples()
    x[::3, 0] = np.nan
    for scaling in calibrate(shifted, x, QuantisationTerms(method)).values():
        assert 0 < scaling.scale < 0.1


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_mask_of_minus_infinity_is_passed_over(shifted: onnx.ModelProto, method: Method) -> None:
    """As that of causal attention: what lies before it has a range all the same."""
    x = samples()
    x[:, 2:] = -np.inf
    for scaling in calibrate(shifted, x, QuantisationTerms(method)).values():
        assert 0 < scaling.scale < 0.1


@pytest.mark.parametrize("extremes", [(18.0, 25.0), (-3.0, -1.0), (0.4, 0.6)])
def test_an_entropy_range_may_lie_away_from_zero(extremes: tuple[float, float]) -> None:
    counts = np.histogram(np.random.default_rng(0).uniform(*extremes, 100_000), 2048, extremes)[0]
    assert entropy_range(counts, extremes) == pytest.approx(extremes, rel=0.1)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_tensor_without_any_finite_value_has_a_scaling(
    shifted: onnx.ModelProto, method: Method, value: float
) -> None:
    x = np.full((9, WIDTH), value, np.float32)
    assert calibrate(shifted, x, QuantisationTerms(method))["shifted"] == Scaling.of_range(0.0, 0.0)
