"""Tails behind a quantised backbone: float, as they train, or in int8 for inference where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fd_runtime.models.model import I64
from model_export.forward import FEATURES, ForwardModel
from model_export.graph import GraphBuilder, tensor
from model_export.quantisation.codes import U8, Scaling
from model_export.quantisation.differences import Difference
from model_export.quantisation.quantisable import Quantisable
from model_export.quantisation.rewriting import FLOAT_FEATURES
from model_export.quantisation.running import run
from model_export.quantisation.sensitivity import ToleranceError
from model_export.quantisation.terms import QuantisationTerms
from model_export.surgery import cut, open_graph

_LOGITS: Final = "logits"
_TOLERANCE: Final = 0.01


def tail_of_codes(forward: ForwardModel, scaling: Scaling) -> onnx.ModelProto:
    """Return the float tail of `forward` behind a DequantizeLinear."""
    tail = cut(forward.model, {forward.features: FLOAT_FEATURES}, {forward.logits_name: _LOGITS})
    shape = open_graph(tail).type_of(FLOAT_FEATURES).shape
    names = [name for node in tail.graph.node for name in (node.name, *node.input, *node.output)]
    build = GraphBuilder([FEATURES, *names])
    build.initializers.extend(tail.graph.initializer)
    build.op(
        "DequantizeLinear",
        FEATURES,
        build.parameter(f"{FEATURES}.scale", np.array(scaling.scale, np.float32)),
        build.parameter(f"{FEATURES}.zero_point", np.array(scaling.zero_point, np.uint8)),
        output=FLOAT_FEATURES,
    )
    build.nodes.extend(tail.graph.node)
    return build.model("tail", [tensor(FEATURES, shape, TensorProto.UINT8)], tail.graph.output)


def quantise_tail(
    tail: onnx.ModelProto,
    features: U8,
    terms: QuantisationTerms,
    labels: I64 | None = None,
) -> onnx.ModelProto:
    """Return a trained tail in int8: the same codes in, logits in float out of the last layer.

    Its weights are constants that no theta replaces: once the tail has trained again, this is due again. The scales of
    its activations depend on them too, so devices keep the float tail unless an int8 one was asked for.

    Args:
        tail: `features` uint8 -> `logits`, as `tail_of_codes` makes it.
        features: codes [n, ...] to calibrate and check with.
        terms: the range of activations and weights; dense layers on codes are always static. Without a tolerance in
            them a hundredth may be lost.
        labels: [n], for a tolerance in accuracy; None = a tolerance is about changed answers.

    Raises:
        ToleranceError: more is lost.
    """
    scaling, floats = _scaling_of(tail), cut(tail, {FLOAT_FEATURES: FLOAT_FEATURES}, {_LOGITS: _LOGITS})
    static = replace(terms, method="minmax") if terms.method == "dynamic" else terms
    layers = Quantisable.of(floats, scaling.numbers(features), static)
    layers = replace(layers, scalings={**layers.scalings, FLOAT_FEATURES: scaling})
    model = cut(layers.with_numbers(layers.layers), {FEATURES: FEATURES}, {_LOGITS: _LOGITS})
    loss = Difference.between(run(tail, features), run(model, features), labels).loss
    tolerance = _TOLERANCE if terms.tolerance is None else terms.tolerance
    if loss > tolerance:
        raise ToleranceError("the tail in int8 (`int8_tail`)", loss, tolerance)
    return model


def _scaling_of(tail: onnx.ModelProto) -> Scaling:
    """What a tail's first node, its DequantizeLinear, says of its features."""
    constants = {each.name: numpy_helper.to_array(each) for each in tail.graph.initializer}
    _, scale, zero_point = tail.graph.node[0].input
    return Scaling(float(constants[scale]), int(constants[zero_point]))
