"""Writing theta over the floats of an ONNX file gives the file that `onnx` would have written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import ModelError, ThetaError
from fd_runtime.models.onnx_parameters import with_parameters
from model_export.families import build_family, readers
from model_export.surgery import with_theta


@pytest.mark.parametrize("name", readers((1, 8, 8)))
def test_the_bytes_are_those_of_a_model_that_was_saved_with_theta(name: str) -> None:
    model = build_family(name, (1, 8, 8), 3, seed=0).model
    layout = ThetaLayout.of((t.name, tuple(t.dims)) for t in model.graph.initializer if t.data_type == 1)
    theta = np.random.default_rng(1).normal(size=layout.size).astype(np.float32)
    assert (
        with_parameters(model.SerializeToString(), layout, theta)
        == with_theta(model, layout, theta).SerializeToString()
    )


def test_a_part_of_the_parameters_may_be_replaced() -> None:
    model = build_family("mlp-s", (4,), 3, seed=0).model
    layout = ThetaLayout.of([("output.bias", (3,))])
    changed = onnx.load_from_string(with_parameters(model.SerializeToString(), layout, np.float32([1, 2, 3])))
    for before, after in zip(model.graph.initializer, changed.graph.initializer, strict=True):
        assert (before.raw_data == after.raw_data) == (before.name != "output.bias")


def test_fields_that_nobody_knows_are_stepped_over() -> None:
    model, layout = build_family("mlp-s", (4,), 3, seed=0).model, ThetaLayout.of([("hidden.bias", (16,))])
    theta = np.arange(16, dtype=np.float32)
    unknown = b"\xa5\x06" + bytes(4) + b"\xa9\x06" + bytes(8) + b"\xa0\x06\xff\xff\x03" + b"\xa2\x06\x02ab"
    changed = onnx.load_from_string(with_parameters(unknown + model.SerializeToString(), layout, theta))
    assert changed.graph == with_theta(model, layout, theta).graph


@pytest.mark.parametrize(
    ("name", "shape"), [("nobody", (16,)), ("hidden.bias", (15,)), ("hidden.weight", (16,))], ids=str
)
def test_a_parameter_that_the_file_lacks_or_stores_otherwise_is_refused(name: str, shape: tuple[int, ...]) -> None:
    model, layout = build_family("mlp-s", (4,), 3, seed=0).model, ThetaLayout.of([(name, shape)])
    with pytest.raises(ModelError, match=name):
        with_parameters(model.SerializeToString(), layout, np.zeros(layout.size, np.float32))


def test_floats_that_are_not_stored_raw_are_refused() -> None:
    model, layout = build_family("mlp-s", (4,), 3, seed=0).model, ThetaLayout.of([("hidden.bias", (16,))])
    bias = next(t for t in model.graph.initializer if t.name == "hidden.bias")
    bias.ClearField("raw_data")
    bias.float_data.extend([0.0] * 16)
    with pytest.raises(ModelError, match=r"hidden\.bias"):
        with_parameters(model.SerializeToString(), layout, np.zeros(16, np.float32))


def test_a_theta_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ThetaError):
        with_parameters(b"", ThetaLayout.of([("w", (2,))]), np.zeros(3, np.float32))


MLP = build_family("mlp-s", (4,), 3, seed=0).model.SerializeToString()


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(MLP) - 1).map(lambda stop: MLP[:stop])))
def test_bytes_that_are_no_whole_file_are_refused(data: bytes) -> None:
    layout = ThetaLayout.of([("output.bias", (3,)), ("nobody", (1,))])
    with pytest.raises(ModelError):
        with_parameters(data, layout, np.zeros(4, np.float32))
