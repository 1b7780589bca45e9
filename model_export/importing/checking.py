"""Proof that an import computes what its source computes: both run on the same random samples.

Version converters, exporters and we make mistakes; none of them gets past this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, reference

from fd_runtime.models.model import ModelError
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.graph import IR_VERSION, one_line
from model_export.importing.ending import Ending
from model_export.importing.precision import is_half
from model_export.importing.refusal import UnreadableModelError
from model_export.surgery import take_apart

Array: TypeAlias = npt.NDArray[Any]

_ROWS = 4
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 1e-2
"""Of the largest value; a source in half precision is itself no better than the second."""


def check_same_function(source: onnx.ModelProto, model: onnx.ModelProto, ending: Ending) -> None:
    """Compare an import with its source on random samples.

    Args:
        source: one input, one output, any opset, as its maker wrote it.
        model: `input` -> `logits`.
        ending: what the source does with its logits.

    Raises:
        UnreadableModelError: the two differ, or one does not run.
    """
    samples, expected = answered(model, _ROWS, partial(_run_source, source))
    answers = ending.apply(run_model(model, samples))
    check_close(expected, answers, _HALF_TOLERANCE if is_half(source) else _TOLERANCE)


def answered(model: onnx.ModelProto, rows: int, run: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Return random samples and what the source says to them by `run`: positive ones, or below 1, where it needs those.

    Raises:
        UnreadableModelError: to none it says finite numbers.
    """
    samples = random_samples(model, rows)
    draws = [samples]
    if samples.dtype == np.float32:  # for roots and logarithms, also of 1 - x
        draws += [np.abs(samples), np.abs(samples) / (1 + np.abs(samples))]
    for drawn in draws:
        expected = run(drawn)
        if np.isfinite(expected).all():
            return drawn, expected
    raise UnreadableModelError("the model says no finite numbers to random samples, so the import cannot be checked")


def random_samples(model: onnx.ModelProto, rows: int) -> Array:
    """Return samples for an imported model: normal numbers, or tokens that it knows."""
    kind = model.graph.input[0].type.tensor_type
    shape = (rows, *(dim.dim_value for dim in kind.shape.dim[1:]))
    rng = np.random.default_rng(rows)
    if kind.elem_type == TensorProto.FLOAT:
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, vocabulary(model), shape, dtype=np.int32)


def vocabulary(model: onnx.ModelProto) -> int:
    """Return how many different tokens a model of tokens knows: the rows of the table in which it looks them up.

    Raises:
        UnreadableModelError: it looks up none.
    """
    graph = take_apart(model)
    ids = {model.graph.input[0].name}
    for node in graph.nodes:
        if node.op_type == "Gather" and node.input[1] in ids and node.input[0] in graph.constants:
            return len(graph.constants[node.input[0]])
        if ids.intersection(node.input):
            ids.update(node.output)
    raise UnreadableModelError(f"input {model.graph.input[0].name!r} is of integers, but no embedding looks them up")


def run_model(model: onnx.ModelProto, samples: Array) -> npt.NDArray[np.float32]:
    """Return the logits [n, classes] of an imported model.

    Raises:
        UnreadableModelError: it does not run.
    """
    try:
        answers = OnnxGraph(model.SerializeToString()).run({model.graph.input[0].name: samples})
    except ModelError as error:
        raise UnreadableModelError(
            f"the import does not run with any batch: export the model with an open first axis; {one_line(error)}"
        ) from error
    logits: npt.NDArray[np.float32] = answers[model.graph.output[0].name]
    return logits


def check_close(expected: Array, actual: Array, tolerance: float) -> None:
    """Compare answers for the same samples, relative to the largest.

    Raises:
        UnreadableModelError: they differ.
    """
    expected = expected.reshape(actual.shape) if expected.size == actual.size else expected
    scale = float(np.abs(expected).max(initial=1e-6))
    error = float(np.abs(expected - actual).max()) / scale if expected.shape == actual.shape else np.inf
    if not error <= tolerance:
        raise UnreadableModelError(f"the import is not the same function: answers differ by {error:.1e} of the largest")


def _run_source(source: onnx.ModelProto, samples: Array) -> Array:
    """Return the source's answers to samples, given at its own batch."""
    info = source.graph.input[0]
    batch = info.type.tensor_type.shape.dim[0].dim_value or len(samples)
    samples = samples.astype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
    padded = np.concatenate([samples, np.repeat(samples[:1], -len(samples) % batch, axis=0)])
    run = _runner(source)
    answers = [run({info.name: padded[start : start + batch]}) for start in range(0, len(padded), batch)]
    return np.concatenate(answers)[: len(samples)].astype(np.float32)


def _runner(source: onnx.ModelProto) -> Callable[[Mapping[str, Array]], Array]:
    """Run a model as it is; where onnxruntime is too old for its opset, by the reference implementation of onnx."""
    stamped = onnx.ModelProto()
    stamped.CopyFrom(source)
    stamped.ir_version = IR_VERSION  # what a later one brought, subgraphs and functions aside, is no part of a source
    name = source.graph.output[0].name
    try:
        session = OnnxGraph(stamped.SerializeToString())
    except ModelError:
        evaluator: Any = reference.ReferenceEvaluator(stamped)
        return lambda feed: np.asarray(evaluator.run([name], dict(feed))[0])
    return lambda feed: session.run(feed)[name]
