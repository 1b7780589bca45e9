"""What does not depend on the samples is computed now: shape arithmetic, and ops on weights alone.

Exporters compute shapes at run time (Shape, Gather, Concat, Reshape), so that the batch may vary, and store weights in
another layout than they use (Transpose, Cast, Slice). Both are read off two runs, of batches of 2 and of 3 samples:
what comes out the same is a constant; a shape that differs in one place has the batch there. (As long as the batch is
baked in, both runs are of that batch, and shapes are constants, too.)

A weight that is read in two ways, such as an embedding that is also the output layer, stays one weight: only what flows
to a single place is replaced by its result, under the name of the weight that it came from. BatchNormalization reads
samples, so it is never folded into a convolution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from fd_runtime.models.model import ModelError
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.graph import Shape, live_nodes, one_line
from model_export.importing.batch import BATCH, baked_batch
from model_export.importing.refusal import UnreadableModelError
from model_export.importing.rewriting import Reading, Site, rewrite, standalone
from model_export.surgery import OpenGraph, take_apart

_OF_SHAPE_ONLY = ("Shape", "Size")
_INITIAL_STATES: Mapping[str, tuple[int, ...]] = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}
"""Inputs of a recurrent layer that are zero when they are left out."""
_TWO, _THREE = 2, 3

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Settled:
    """A tensor that does not depend on the samples.

    Attributes:
        of_two, of_three: its content in batches of 2 and of 3.
        origins: the weights from which it was computed.
        is_their_only_use: whether they flow nowhere else.
    """

    of_two: Array
    of_three: Array
    origins: tuple[str, ...]
    is_their_only_use: bool

    @property
    def is_constant(self) -> bool:
        same = self.of_two.shape == self.of_three.shape and np.array_equal(self.of_two, self.of_three)
        return same and self.is_their_only_use

    def as_shape_of(self, source: Shape) -> Array | None:
        """What a Reshape of a tensor like `source` is told, the batch being open; None if that cannot be said.

        0 copies the extent of the input's same axis, -1 is whatever is left over.
        """
        if self.of_two.ndim != 1 or self.of_two.shape != self.of_three.shape:
            return None
        told = np.where(self.of_two == self.of_three, self.of_two, -1)
        if source[:1] == (BATCH,) and (*self.of_two[:1], *self.of_three[:1]) == (_TWO, _THREE):
            told[0] = 0
        return told if (told == -1).sum() <= 1 else None

    @property
    def name(self) -> str:
        """That of the weights it came from, empty if it came from none."""
        return "+".join(self.origins)


def settle(reading: Reading) -> Reading:
    """Return the model with everything replaced that is known before a sample is.

    Raises:
        UnreadableModelError: it does not run in batches of 2 and of 3.
    """
    settled = _settled(reading)
    if not settled:
        return reading
    names = (found.name for found in settled.values() if found.is_constant)
    return rewrite(Reading(reading.model, reading.weights.union(names)), partial(_use, settled))


def _use(settled: Mapping[str, _Settled], site: Site) -> str | None:
    """Give a node that depends on the samples what is known without them."""
    inputs = [_known(settled, site, index) for index in range(len(site.node.input))]
    return site.again(inputs, allowzero=None) if inputs != list(site.node.input) else None


def _known(settled: Mapping[str, _Settled], site: Site, index: int) -> str:
    """What a node shall read as its input `index`."""
    name, op = site.input(index), site.node.op_type
    found = settled.get(name)
    if found is None:
        return name
    if index in _INITIAL_STATES.get(op, ()) and not found.of_two.any() and not found.origins:
        return ""
    if found.is_constant:
        content = found.of_two
        return site.build.parameter(found.name, content) if found.name else site.constant(content, content.dtype)
    if op == "Reshape" and (shape := found.as_shape_of(site.shape(site.x))) is not None:
        return site.constant(shape, np.int64)
    return name


def _settled(reading: Reading) -> Mapping[str, _Settled]:
    """The computed tensors that do not depend on the samples, but are read by nodes that do."""
    graph = take_apart(reading.model)
    origins = _origins(graph, reading.weights)
    dependent = [node for node in graph.nodes if not origins.keys() >= set(node.output)]
    border = dict.fromkeys(name for node in dependent for name in node.input if name in origins)
    computed = [name for name in border if name and name not in graph.constants]
    uses = {weight: sum(weight in origins[name] for name in border) for weight in reading.weights}
    baked = baked_batch(reading)
    of_two, of_three = (_compute(reading, graph, computed, baked or batch) for batch in (_TWO, _THREE))
    return {
        name: _Settled(
            of_two[name],
            of_three[name],
            tuple(weight for weight in graph.constants if weight in origins[name]),
            all(uses[weight] == 1 for weight in origins[name]),
        )
        for name in computed
    }


def _origins(graph: OpenGraph, weights: Collection[str]) -> dict[str, frozenset[str]]:
    """The tensors that do not depend on the samples, and the weights that each was computed from."""
    nothing: frozenset[str] = frozenset()
    origins = dict.fromkeys(["", *graph.constants], nothing) | {name: frozenset([name]) for name in weights}
    for node in graph.nodes:
        if node.op_type in _OF_SHAPE_ONLY:
            origins |= dict.fromkeys(node.output, nothing)
        elif all(name in origins for name in node.input):
            origins |= dict.fromkeys(node.output, nothing.union(*(origins[name] for name in node.input)))
    return origins


def _compute(reading: Reading, graph: OpenGraph, wanted: Sequence[str], batch: int) -> Mapping[str, Array]:
    """Run what makes the `wanted` tensors with a batch of zeros."""
    if not wanted:
        return {}
    nodes = live_nodes(graph.nodes, wanted)
    source = graph.type_of(reading.input_name)
    reads_samples = any(reading.input_name in node.input for node in nodes)
    shape = (batch, *map(int, source.shape[1:]))
    zeros = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(source.dtype))
    feed = {reading.input_name: zeros} if reads_samples else {}
    try:
        return OnnxGraph(standalone(graph, nodes, list(feed), wanted).SerializeToString()).run(feed)
    except ModelError as error:
        raise UnreadableModelError(
            f"the model does not run with a batch of {batch}: export it with an open first axis; {one_line(error)}"
        ) from error
