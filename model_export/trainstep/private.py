"""The train step of DP-SGD for dense tails (Abadi et al. 2016, algorithm 1): every row's gradient is clipped by itself.

    theta -> Split, Reshape -> forward -> logits -> loss, d logits -> backward -> x, dy of every dense layer
                                                                                         |
    theta.new <- update <- proximal term <- / expected_rows <- + noise <- sum of the clipped gradients

A row's gradient by a dense layer is the outer product of what the layer read, x, and the gradient by its answer, dy. So
its norm is known without it, |dy|^2 (|x|^2 + 1) (Goodfellow 2015; ghost clipping, Li et al. 2022), and one Gemm a layer
over dy scaled row by row gives the clipped sum without a second backward pass (book-keeping, Bu et al. 2023).

Adding or removing a row moves that sum by at most C = `max_norm`, up to float32 rounding (1e-6 C), because

- every op must treat each row by itself; a graph with another is refused;
- `weight` multiplies a row's loss *before* the clipping: no weight lifts the bound, and a row of weight 0 is padding. A
  row's weight must not depend on other rows, so it is not divided by their sum;
- `expected_rows`, the divisor, is the expected lot: under Poisson sampling the true number of rows is private.

`noise` [P] comes from the caller's cryptographic generator, normal with deviation sigma C. Two things are not promised:
`loss`, the weighted sum of the rows' losses over `expected_rows`, is not private and must not leave the device; and
features must be finite, which `fd_runtime.models.train_graph` sees to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from model_export.graph import GraphBuilder, live_nodes
from model_export.surgery import attributes
from model_export.trainstep import rules as _rules  # noqa: F401  # registers the gradient rules
from model_export.trainstep.autodiff import UnsupportedOpError, differentiate
from model_export.trainstep.draft import Draft, TrainStep, begin
from model_export.trainstep.loss import WEIGHT, write_summed_loss
from model_export.trainstep.optimizers import MAX_NORM, OptimizerName, write_proximal

NOISE, EXPECTED_ROWS = "noise", "expected_rows"

_DENSE = frozenset({"Gemm", "MatMul"})
_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Exp", "Erf", "Cast", "Identity", "Dropout", "DequantizeLinear", "Relu", "Clip"}
    | {"LeakyRelu", "Elu", "Softplus", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh"}
)


def compile_private_step(
    forward: onnx.ModelProto,
    *,
    input_name: str,
    logits_name: str,
    trainable: Collection[str],
    optimizer: OptimizerName,
    weight_decay: float = 0.0,
) -> TrainStep:
    """Return the private train step of the part of `forward` between two tensors.

    Its inputs are those of `compile_train_step`, `max_norm` being the clip of one row, and `noise` [P] and
    `expected_rows` []. Proximal term, decay and optimizer read no row: they cost no privacy.

    The arguments are those of `compile_train_step`, but each parameter must be the weight or the bias of one dense
    layer (Gemm, MatMul, Add).

    Raises:
        GraphError: a name is unknown or reserved, or a shape is missing.
        UnsupportedOpError: an op is no dense layer and mixes or may mix rows, or a parameter is used otherwise.
    """
    draft = begin(
        forward,
        input_name=input_name,
        logits_name=logits_name,
        trainable=trainable,
        optimizer=optimizer,
        vectors=[NOISE],
        scalars=[EXPECTED_ROWS],
    )
    layers, build = _dense_layers(draft), draft.build
    of_batch = write_summed_loss(build, logits_name, draft.classes, WEIGHT)
    dys = _backward(draft, layers, logits_name, of_batch.d_logits)
    total = draft.flatten(_clipped_sums(build, layers, dys))

    build.scope = "private/"
    gradient = build.op("Div", build.op("Add", total, NOISE), EXPECTED_ROWS)
    loss, gradient = write_proximal(build, build.op("Div", of_batch.loss, EXPECTED_ROWS), gradient)
    return draft.finish(loss, gradient, weight_decay=weight_decay)


@dataclass(frozen=True, slots=True)
class _DenseLayer:
    """y = x W + b, of which at least one parameter trains; a name is empty if that one does not.

    Attributes:
        node: the node that makes y [N, O] of x [N, I].
        weight, bias: names of W and b.
        is_transposed: W lies as [O, I].
    """

    node: onnx.NodeProto
    x: str
    weight: str
    bias: str
    is_transposed: bool

    @property
    def y(self) -> str:
        return str(self.node.output[0])


def _dense_layers(draft: Draft) -> list[_DenseLayer]:
    """Return the layers that train, in order; refuse a graph in which they are not all that happens to rows."""
    readers = Counter(name for node in draft.nodes for name in node.input)
    layers = []
    for node in draft.nodes:
        _check_rows_stay_apart(draft, node)
        own = [name for name in draft.trainable if name in node.input]
        if shared := [name for name in own if readers[name] > 1]:
            raise _unsupported(node, f"a row's gradient by {shared[0]} has several parts: store it once for each use")
        if own:
            layers.append(_dense_layer(draft, node, own))
    return layers


def _check_rows_stay_apart(draft: Draft, node: onnx.NodeProto) -> None:
    """A row of the answer depends on no other row of what the node reads."""
    fixed = {"", *draft.graph.constants, *draft.trainable}
    streams = [draft.graph.type_of(name).shape for name in node.input if name not in fixed]
    settings = attributes(node)
    if node.op_type in _DENSE:
        is_apart = node.input[0] not in fixed and [len(shape) for shape in streams] == [2]
        is_apart &= not settings.get("transA", 0)
    elif node.op_type == "Flatten":
        is_apart = settings.get("axis", 1) == 1
    else:
        is_apart = node.op_type in _ELEMENTWISE and set(streams) == {draft.graph.type_of(node.output[0]).shape}
    if not is_apart:
        raise _unsupported(node, "a private step takes dense layers and elementwise ops: end the backbone behind it")


def _dense_layer(draft: Draft, node: onnx.NodeProto, own: Sequence[str]) -> _DenseLayer:
    settings, fixed = attributes(node), [*draft.graph.constants, *draft.trainable]
    y = draft.graph.type_of(node.output[0]).shape
    if node.op_type == "Add":
        x, weight, bias = next(name for name in node.input if name not in fixed), "", own[0]
    elif node.op_type in _DENSE and settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0:
        x, weight, bias = [*node.input, ""][:3]
    else:
        raise _unsupported(node, f"freeze {', '.join(own)}: only plain dense layers train privately")
    shapes = {slot.name: slot.shape for slot in draft.layout.slots}
    if bias in own and (len(y) != 2 or shapes[bias] not in ((y[1],), (1, y[1]))):
        raise _unsupported(node, f"give {bias} one element for each of its outputs")
    kept = [name if name in own else "" for name in (weight, bias)]
    return _DenseLayer(node, x, kept[0], kept[1], bool(settings.get("transB", 0)))


def _backward(draft: Draft, layers: Sequence[_DenseLayer], logits: str, d_logits: str) -> list[str]:
    """Return the gradient by the answer of each layer, going from layer to layer."""
    dys, known, dy = [], logits, d_logits
    for index, layer in reversed(list(enumerate(layers))):
        between = live_nodes(draft.nodes, [known], given=[layer.y])
        if any(earlier.node in between for earlier in layers[:index]):
            raise _unsupported(layer.node, "a private step takes a chain of layers, and a path leads round this one")
        dy = differentiate(draft.build, draft.graph, between, {known: dy}, [layer.y])[layer.y]
        known = layer.y
        dys.append(dy)
    return dys[::-1]


def _clipped_sums(build: GraphBuilder, layers: Sequence[_DenseLayer], dys: Sequence[str]) -> Mapping[str, str]:
    """Return the sum over all rows of their clipped gradients, for each parameter."""
    build.scope = "clip/"
    factors = _factors(build, layers, dys)
    sums = {}
    for layer, dy in zip(layers, dys, strict=True):
        scaled = build.op("Mul", dy, factors)
        if layer.weight:
            left, right = (scaled, layer.x) if layer.is_transposed else (layer.x, scaled)
            sums[layer.weight] = build.op("Gemm", left, right, transA=1)
        if layer.bias:
            sums[layer.bias] = build.op("ReduceSum", scaled, build.constant([0], np.int64), keepdims=0)
    return sums


def _factors(build: GraphBuilder, layers: Sequence[_DenseLayer], dys: Sequence[str]) -> str:
    """Return min(1, C / norm) of each row's whole gradient: [N, 1]."""
    squares = [_squared_norm(build, layer, dy) for layer, dy in zip(layers, dys, strict=True)]
    factors = build.op("Div", MAX_NORM, build.op("Sqrt", build.op("Sum", *squares)))
    return build.op("Min", factors, build.constant(1.0))  # an infinite factor, that of a norm of 0, included


def _squared_norm(build: GraphBuilder, layer: _DenseLayer, dy: str) -> str:
    """|dy|^2 (|x|^2 + 1): the first summand is the weight's, the second the bias's."""
    square = _row_square(build, dy)
    if not layer.weight:
        return square
    read = _row_square(build, layer.x)
    return build.op("Mul", square, build.op("Add", read, build.constant(1.0)) if layer.bias else read)


def _row_square(build: GraphBuilder, rows: str) -> str:
    """|row|^2 of each row: [N, 1]. Two ops are three times as fast as onnxruntime's ReduceSumSquare."""
    return build.op("ReduceSum", build.op("Mul", rows, rows), build.constant([1], np.int64), keepdims=1)


def _unsupported(node: onnx.NodeProto, advice: str) -> UnsupportedOpError:
    return UnsupportedOpError(node.name, node.op_type, advice)
