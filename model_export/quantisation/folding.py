"""BatchNormalization joins the layer before it: with frozen statistics it is one factor and one addend a channel.

The float forward model keeps it apart, so that it may train; an int8 layer computes it for nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from model_export.graph import assemble
from model_export.quantisation.layers import channel_axis, is_weighted
from model_export.surgery import OpenGraph, attributes, open_graph

Constants: TypeAlias = dict[str, npt.NDArray[Any]]


def fold_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with every BatchNormalization inside the Conv or Gemm before it (Jacob et al. 2018, 3.2).

    One stays as it is where others read what it normalises, or another operator makes it.
    """
    graph = open_graph(model)
    uses = Counter([*(name for node in graph.nodes for name in node.input), *(o.name for o in model.graph.output)])
    producers = {node.output[0]: node for node in graph.nodes}
    folded: dict[str, onnx.NodeProto | None] = {}
    constants: Constants = dict(graph.constants)
    for node in graph.nodes:
        before = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if before is not None and uses[node.input[0]] == 1 and _takes_channels(before, graph):
            folded |= {before.name: _folded(before, node, constants), node.name: None}
    nodes = [folded.get(node.name, node) for node in graph.nodes]
    return assemble(
        model.graph.name,
        [node for node in nodes if node is not None],
        model.graph.input,
        model.graph.output,
        [numpy_helper.from_array(content, name) for name, content in constants.items()],
    )


def _takes_channels(node: onnx.NodeProto, graph: OpenGraph) -> bool:
    return node.op_type in ("Conv", "Gemm") and is_weighted(node, graph)


def _folded(layer: onnx.NodeProto, norm: onnx.NodeProto, constants: Constants) -> onnx.NodeProto:
    """The layer with the normalisation in its weights, which are stored under new names: others may read the old."""
    gain, shift, mean, variance = (constants[name].astype(np.float64) for name in norm.input[1:])
    factor = gain / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    weights = constants[layer.input[1]]
    axis = channel_axis(layer, weights)
    along = factor.reshape([-1 if each == axis else 1 for each in range(weights.ndim)])
    bias = constants[layer.input[2]].astype(np.float64) if any(layer.input[2:]) else 0.0
    names = [f"{norm.name}/weight", f"{norm.name}/bias"]
    parts = [weights * along, shift + (bias - mean) * factor]
    constants.update({name: part.astype(np.float32) for name, part in zip(names, parts, strict=True)})
    changed = helper.make_node(layer.op_type, [layer.input[0], *names], [norm.output[0]], layer.name)
    changed.attribute.extend(layer.attribute)
    return changed
