"""A graph that reads another file is refused before onnxruntime can open that file, wherever the graph hides it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fd_runtime.models.model import ModelError
from fd_runtime.models.onnx_model import OnnxGraph
from fd_runtime.models.onnx_references import check_self_contained

VALUES = np.arange(3, dtype=np.float32)
FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL


def elsewhere(location: str = "secret.bin") -> onnx.TensorProto:
    """Three floats that lie in another file."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_of(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [3])],
        [helper.make_tensor_value_info("y", FLOAT, [3])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


ADD = helper.make_node("Add", ["x", "w"], ["y"])


def as_initializer() -> onnx.ModelProto:
    return model_of(ADD, initializers=(elsewhere(),))


def as_constant() -> onnx.ModelProto:
    return model_of(helper.make_node("Constant", [], ["w"], value=elsewhere()), ADD)


def in_a_branch() -> onnx.ModelProto:
    output = [helper.make_tensor_value_info("b", FLOAT, [3])]
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["b"])], "b", [], output, [elsewhere()])
    always = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", BOOL, [], [True]))
    return model_of(always, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def in_a_sparse_tensor() -> onnx.ModelProto:
    model = model_of(ADD)
    indices = numpy_helper.from_array(np.arange(3), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(elsewhere(), indices, [3]))
    return model


def in_a_function() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Constant", [], ["w"], value=elsewhere()), ADD]
    model = model_of(helper.make_node("F", ["x"], ["y"], domain="own"))
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


PLACES = [as_initializer, as_constant, in_a_branch, in_a_sparse_tensor, in_a_function]


@pytest.mark.parametrize("hide", PLACES, ids=lambda hide: hide.__name__)
def test_a_tensor_in_another_file_is_refused_wherever_it_is(hide, tmp_path, monkeypatch):
    VALUES.tofile(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no manifest vouches for"):
        OnnxGraph(hide().SerializeToString())


def test_a_field_whose_number_only_protobuf_understands_does_not_hide_it() -> None:
    model = as_initializer().SerializeToString()
    at = model.index(elsewhere().SerializeToString()) - 2
    assert model[at] == 5 << 3 | 2  # graph.initializer
    hidden = bytes([model[at] | 0x80, 0x80, 0x80, 0x80, 0x10])  # the same number plus 2^32
    graph_at = model.index(b"\x3a")
    graph_size = model[graph_at + 1] + len(hidden) - 1
    assert graph_size < 128
    changed = model[:graph_at] + bytes([0x3A, graph_size]) + model[graph_at + 2 : at] + hidden + model[at + 1 :]
    with pytest.raises(ModelError, match="not an ONNX file"):
        check_self_contained(changed)


def test_a_graph_that_only_talks_about_locations_opens() -> None:
    model = model_of(ADD, initializers=(numpy_helper.from_array(VALUES, "w"),))
    model.doc_string = model.graph.node[0].name = "location"
    np.testing.assert_array_equal(OnnxGraph(model.SerializeToString()).run({"x": VALUES})["y"], 2 * VALUES)
