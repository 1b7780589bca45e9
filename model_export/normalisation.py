"""The statistics of BatchNormalization, measured once and then frozen.

A train step changes parameters only: from a batch's own statistics a device could learn nothing with three samples, and
the frozen graph would not be the one that was trained. So the factory measures mean and variance before it trains,
layer after layer, each behind those already normalised: data-dependent initialisation (Salimans & Kingma 2016,
section 3; Mishkin & Matas 2016). From there on a normalisation is an affine map with a scale and a shift that train.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.forward import ForwardModel
from model_export.graph import GraphBuilder, tensor
from model_export.surgery import OpenGraph, open_graph, with_theta

_LEAST_VARIANCE = 1e-10
"""What varies less is constant: it moves to 0 and is not stretched."""


def normalise_statistics(forward: ForwardModel, samples: npt.NDArray[Any]) -> ForwardModel:
    """Return `forward` with its fresh statistics, those with mean 0 and variance 1, measured on samples.

    Args:
        forward: any model; one without fresh statistics is returned as it is.
        samples: preprocessed [n, *sample_shape], some hundreds, of all classes. Missing values (NaN) do not count.
    """
    graph = open_graph(forward.model)
    fresh = [node for node in graph.nodes if _is_fresh(node, graph)]
    if not fresh:
        return forward
    layout = ThetaLayout.of((name, graph.constants[name].shape) for node in fresh for name in node.input[3:])
    probe = _measuring(forward.model, graph, fresh, layout)
    measured = OnnxGraph(probe.SerializeToString()).run({forward.input_name: samples})
    statistics = np.concatenate([measured[_measured(slot.name)] for slot in layout.slots])
    return replace(forward, model=with_theta(forward.model, layout, statistics))


def _is_fresh(node: onnx.NodeProto, graph: OpenGraph) -> bool:
    if node.op_type != "BatchNormalization":
        return False
    mean, variance = (graph.constants[name] for name in node.input[3:])
    return not mean.any() and bool((variance == 1.0).all())


def _measuring(
    model: onnx.ModelProto, graph: OpenGraph, fresh: list[onnx.NodeProto], layout: ThetaLayout
) -> onnx.ModelProto:
    """The model with every fresh normalisation reading, and the graph returning, what the nodes before it measure."""
    build = GraphBuilder({*graph.types, *(_measured(slot.name) for slot in layout.slots)})
    for name, content in graph.constants.items():
        build.parameter(name, content)
    for node in graph.nodes:
        if node in fresh:
            _measure(build, node, rank=len(graph.type_of(node.input[0]).shape))
        build.nodes.append(node)
    outputs = [tensor(_measured(slot.name), slot.shape) for slot in layout.slots]
    return build.model("statistics", list(model.graph.input), outputs)


def _measure(build: GraphBuilder, node: onnx.NodeProto, rank: int) -> None:
    """Mean and variance of each channel over rows and places, from the values that are numbers."""
    build.scope = f"{node.name}/"
    x, names = node.input[0], [_measured(name) for name in node.input[3:]]
    axes, flat = build.constant([0, *range(2, rank)], np.int64), build.constant([-1], np.int64)
    zero, one = build.constant(0.0), build.constant(1.0)
    missing = build.op("IsNaN", x)
    known = build.op("Cast", build.op("Not", missing), to=TensorProto.FLOAT)
    count = build.op("Max", build.op("ReduceSum", known, axes), one)
    mean = build.op("Div", build.op("ReduceSum", build.op("Where", missing, zero, x), axes), count)
    apart = build.op("Where", missing, zero, build.op("Sub", x, mean))
    variance = build.op("Div", build.op("ReduceSum", build.op("Mul", apart, apart), axes), count)
    is_constant = build.op("Less", variance, build.constant(_LEAST_VARIANCE))
    for name, content in zip(names, (mean, build.op("Where", is_constant, one, variance)), strict=True):
        build.op("Reshape", content, flat, output=name)
    node.input[3:] = names


def _measured(name: str) -> str:
    return f"{name}.measured"
