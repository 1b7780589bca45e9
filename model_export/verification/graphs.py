"""Graphs that no bundle holds but checks need: the tail in plain float, and a graph that shows its inner tensors."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
from onnx import TensorProto

from fd_protocol.manifest import FeatureSpec
from fd_runtime.models.model import Features, Inputs
from model_export.forward import FEATURES
from model_export.surgery import cut, open_graph

LOGITS = "logits"


def float_tail(tail: onnx.ModelProto) -> onnx.ModelProto:
    """Return the tail as it reads float features: without the DequantizeLinear that leads an int8 backbone's in."""
    first = next(node for node in tail.graph.node if FEATURES in node.input)
    begin = first.output[0] if first.op_type == "DequantizeLinear" else FEATURES
    return cut(tail, {begin: FEATURES}, {LOGITS: LOGITS})


def showing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with every float tensor that a node makes as an output too."""
    graph = open_graph(model)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    for node in graph.nodes:
        for name in node.output:
            if name and name not in known and name in graph.types and graph.types[name].dtype == TensorProto.FLOAT:
                shown.graph.output.append(graph.types[name].declare(name))
    return shown


def as_numbers(features: Features, spec: FeatureSpec | None) -> Inputs:
    """Return what the codes of an int8 backbone stand for; floats and tokens stand for themselves."""
    if spec is None or spec.dtype == "float32":
        return cast("Inputs", features)
    return (features.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)
