"""Models as other tools write them, made by hand: any opset, any IR version, any number of inputs and outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fd_runtime.models.onnx_model import OnnxGraph
from model_export.forward import ForwardModel

RNG = np.random.default_rng(7)


def weights(**shapes: Sequence[int]) -> dict[str, np.ndarray]:
    """Random float32 arrays by name."""
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def node(op: str, *inputs: str, to: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node that makes the tensor `to`, or several, separated by blanks."""
    return helper.make_node(op, inputs, to.split(), name=f"{op}_{to.split(maxsplit=1)[0]}", domain=domain, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    stored: Mapping[str, np.ndarray],
    *,
    x: Sequence[Any] = ("N", 4),
    y: Sequence[Any] = ("N", 3),
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """The model x -> y."""
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", dtype, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(content, name) for name, content in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def dense(**changed: Any) -> onnx.ModelProto:
    """A model of one dense layer, 4 to 3."""
    return model([node("MatMul", "x", "w", to="y")], weights(w=(4, 3)), **changed)


def ops(forward: ForwardModel) -> list[str]:
    return [part.op_type for part in forward.model.graph.node]


def answers(imported: ForwardModel, samples: np.ndarray) -> np.ndarray:
    return OnnxGraph(imported.model.SerializeToString()).run({"input": samples})["logits"]


def run(source: onnx.ModelProto, samples: np.ndarray) -> np.ndarray:
    return OnnxGraph(source.SerializeToString()).run({"x": samples})["y"]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
