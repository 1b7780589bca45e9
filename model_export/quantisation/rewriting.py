"""A float graph on its way to integers: nodes move into a new graph, and some tensors get a uint8 twin.

    tensor -> QuantizeLinear -> tensor.codes (uint8) -> DequantizeLinear -> tensor.float

A runtime turns DequantizeLinear -> operator -> QuantizeLinear into one operator on integers. Where it has no such
kernel it computes the three as they stand, so the graph is right everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from model_export.forward import FEATURES
from model_export.graph import GraphBuilder, tensor
from model_export.quantisation.codes import ChannelCodes, Scaling, quantise_bias, quantise_weights
from model_export.quantisation.layers import channel_axis
from model_export.surgery import OpenGraph, open_graph

FLOAT_FEATURES = f"{FEATURES}.float"
"""The features before they become codes, in a backbone, and after it, in a tail."""


class Rewriting:
    """One graph on its way; where its tensors have codes, readers get the numbers that those stand for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph: OpenGraph = open_graph(model)
        names = [name for node in self.graph.nodes for name in (node.name, *node.input, *node.output)]
        self.build = GraphBuilder([FEATURES, *names])
        self.build.initializers.extend(numpy_helper.from_array(c, name) for name, c in self.graph.constants.items())
        self._model = model
        (self._output,) = model.graph.output
        self._numbers: dict[str, str] = {}
        self._codes: dict[str, tuple[str, Scaling]] = {}

    def numbers(self, name: str) -> str:
        """Where the numbers of a tensor are read."""
        return self._numbers.get(name, name)

    def has_codes(self, name: str) -> bool:
        return name in self._codes

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str] = (), output: str = "") -> None:
        """Append `node`; it reads `inputs` in place of its own, and writes `output` in place of its first output."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = inputs or [self.numbers(name) for name in node.input]
        if output:
            copied.output[0] = output
        self.build.nodes.append(copied)

    def quantise(self, name: str, scaling: Scaling) -> None:
        """Give the tensor `name` codes."""
        self.build.scope = f"{name}/"
        codes = self.build.op("QuantizeLinear", name, *self._constants(scaling), output=self._codes_name(name))
        self.dequantise(name, codes, scaling)

    def dequantise(self, name: str, codes: str, scaling: Scaling) -> None:
        """Let the tensor `name` be what these codes stand for."""
        self.build.scope = f"{name}/"
        fresh = self.build.fresh(f"{name}.float")
        self._numbers[name] = self.build.op("DequantizeLinear", codes, *self._constants(scaling), output=fresh)
        self._codes[name] = codes, scaling

    def look_up(self, node: onnx.NodeProto) -> None:
        """Append an embedding whose table is stored in codes; the codes are looked up."""
        table, (output,) = self.graph.constants[node.input[0]], node.output
        scaling = Scaling.of_values(table)
        stored, codes = self.store(f"{node.input[0]}.codes", scaling.codes(table)), self._codes_name(output)
        self.copy(node, [stored, self.numbers(node.input[1])], codes)
        self.dequantise(output, codes, scaling)

    def weights(self, node: onnx.NodeProto, *, limit: int, input_scale: float = 1.0) -> ChannelCodes:
        """The weights of a layer in int8, for an input of this scale."""
        weights, *biases = (self.graph.constants[name] for name in node.input[1:] if name)
        bias = biases[0].ravel() if biases else None
        return quantise_weights(weights, channel_axis(node, weights), limit=limit, bias=bias, input_scale=input_scale)

    def stored_parameters(self, node: onnx.NodeProto, *, limit: int, input_scale: float) -> list[str]:
        """Store the weights of a layer in int8 and its bias in int32; return where their numbers are read."""
        weights = self.weights(node, limit=limit, input_scale=input_scale)
        axis = channel_axis(node, weights.codes)
        names = [self._stored_by_channel(node.input[1], weights.codes, weights.scales, axis)]
        for name in filter(None, node.input[2:]):
            codes = quantise_bias(self.graph.constants[name].ravel(), input_scale, weights.scales)
            names.append(self._stored_by_channel(name, codes, weights.scales * np.float32(input_scale), 0))
        return names

    def store(self, name: str, content: npt.NDArray[Any]) -> str:
        """Store a constant under this name, or one like it if it is taken."""
        return self.build.parameter(self.build.fresh(name), content)

    def with_codes(self) -> tuple[onnx.ModelProto, Scaling]:
        """Return the new graph with its output's codes, and what they stand for."""
        codes, scaling = self._codes[self._output.name]
        return self._finish(codes, TensorProto.UINT8), scaling

    def with_numbers(self) -> onnx.ModelProto:
        """Return the new graph with its output's numbers."""
        return self._finish(self.numbers(self._output.name), TensorProto.FLOAT)

    def _finish(self, name: str, dtype: int) -> onnx.ModelProto:
        declared = tensor(name, self.graph.type_of(self._output.name).shape, dtype)
        return self.build.model(self._model.graph.name, self._model.graph.input, [declared])

    def _constants(self, scaling: Scaling) -> tuple[str, str]:
        return self.build.constant(scaling.scale), self.build.constant(scaling.zero_point, np.uint8)

    def _stored_by_channel(self, name: str, codes: npt.NDArray[Any], scales: npt.NDArray[np.float32], axis: int) -> str:
        self.build.scope = f"{name}/"
        scale = self.store(f"{name}.scale", scales)
        # Of its own, not a shared constant: where onnxruntime makes weights unsigned (`x64quantprecision`) it rewrites
        # the zeros of each layer under their name, and fails at the second layer that has the same.
        zeros = self.store(f"{name}.zeros", np.zeros(len(scales), codes.dtype))
        stored = self.store(f"{name}.codes", codes)
        return self.build.op(
            "DequantizeLinear", stored, scale, zeros, axis=axis, output=self.build.fresh(f"{name}.float")
        )

    def _codes_name(self, name: str) -> str:
        return FEATURES if name == FLOAT_FEATURES else self.build.fresh(f"{name}.codes")
