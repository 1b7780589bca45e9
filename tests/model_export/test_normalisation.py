"""Frozen statistics: every normalisation starts with mean 0 and variance 1, whatever the data are measured in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fd_runtime.models.onnx_model import OnnxGraph
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.normalisation import normalise_statistics


def draw(rows: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Samples far from standard."""
    return (np.random.default_rng(seed).normal(size=(rows, *shape)) * 30 + 200).astype(np.float32)


def normalised_values(forward: ForwardModel, x: np.ndarray) -> list[np.ndarray]:
    """What comes out of each BatchNormalization, before its scale: [rows, channels, ...]."""
    model = onnx.shape_inference.infer_shapes(forward.model)
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    names = [node.output[0] for node in nodes]
    model.graph.output.extend(info for info in model.graph.value_info if info.name in names)
    outputs = OnnxGraph(model.SerializeToString()).run({"input": x})
    known = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return [outputs[n.output[0]] / known.get(n.input[1], np.ones(1)).max() for n in nodes]


def stored(forward: ForwardModel, name: str) -> np.ndarray:
    return next(onnx.numpy_helper.to_array(t) for t in forward.model.graph.initializer if t.name == name)


@pytest.mark.parametrize(
    ("name", "shape", "layers"), [("dw-s", (2, 12, 9), 14), ("conv1d-m", (6, 32), 4), ("tab-s", (5,), 1)]
)
def test_every_layer_is_normalised_behind_those_before_it(name: str, shape: tuple[int, ...], layers: int) -> None:
    x = draw(100, shape)
    values = normalised_values(normalise_statistics(build_family(name, shape, 3, seed=0), x), x)
    assert len(values) == layers
    for value in values:
        axes = tuple(axis for axis in range(value.ndim) if axis != 1)
        np.testing.assert_allclose(value.mean(axes), 0, atol=2e-3)
        np.testing.assert_allclose(value.std(axes), 1, atol=2e-3)


def test_missing_values_do_not_count() -> None:
    x = draw(50, (3,))
    x[::3, 0] = np.nan
    x[:, 2] = np.nan
    forward = normalise_statistics(build_family("tab-s", (3,), 2, seed=0), x)
    known = x[~np.isnan(x[:, 0]), 0]
    assert stored(forward, "columns.mean") == pytest.approx([known.mean(), x[:, 1].mean(), 0], rel=1e-5)
    assert stored(forward, "columns.variance") == pytest.approx([known.var(), x[:, 1].var(), 1], rel=1e-4)


def test_what_never_varies_is_not_stretched() -> None:
    x = draw(50, (3,))
    x[:, 1] = 7.0
    forward = normalise_statistics(build_family("tab-s", (3,), 2, seed=0), x)
    assert (stored(forward, "columns.mean")[1], stored(forward, "columns.variance")[1]) == (7.0, 1.0)


def test_measured_statistics_stay_as_they_are() -> None:
    once = normalise_statistics(build_family("conv1d-s", (6, 32), 3, seed=0), draw(20, (6, 32)))
    assert normalise_statistics(once, draw(20, (6, 32), seed=1)) is once


def test_a_model_without_statistics_is_returned_as_it_is() -> None:
    forward = build_family("cnn-s", (1, 8, 8), 3, seed=0)
    assert normalise_statistics(forward, draw(4, (1, 8, 8))) is forward


def test_nothing_but_statistics_changes() -> None:
    fresh = build_family("dw-s", (1, 8, 8), 3, seed=0)
    changed = normalise_statistics(fresh, draw(20, (1, 8, 8)))
    for before, after in zip(fresh.model.graph.initializer, changed.model.graph.initializer, strict=True):
        assert (before == after) == (not before.name.endswith((".mean", ".variance")))
    assert fresh.model.graph.node == changed.model.graph.node
