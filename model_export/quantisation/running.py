"""Running float and quantised graphs on the workstation: onnxruntime on one thread, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]

from model_export.surgery import open_graph

_BATCH_ROWS = 50


def run(model: onnx.ModelProto, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the only output of `model` for all rows of its only input."""
    (name,) = (output.name for output in model.graph.output)
    return np.concatenate([batch[name] for batch in _batches(model, rows)])


def run_through(model: onnx.ModelProto, rows: npt.NDArray[Any]) -> Iterator[Mapping[str, npt.NDArray[np.float32]]]:
    """Yield every float tensor that `model` computes, its input included, a batch of rows after another."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = open_graph(model)
    del watched.graph.output[:]
    for name in (name for node in graph.nodes for name in node.output if name):
        if graph.type_of(name).dtype == onnx.TensorProto.FLOAT:
            watched.graph.output.append(graph.type_of(name).declare(name))
    (source,) = model.graph.input
    is_float = graph.type_of(source.name).dtype == onnx.TensorProto.FLOAT
    for batch, tensors in zip(_split(rows), _batches(watched, rows), strict=True):
        yield {**tensors, source.name: batch} if is_float else tensors


def _batches(model: onnx.ModelProto, rows: npt.NDArray[Any]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    session = InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    (source,) = (value.name for value in session.get_inputs())
    names = [value.name for value in session.get_outputs()]
    for batch in _split(rows):
        outputs: Any = session.run(names, {source: batch})
        yield dict(zip(names, outputs, strict=True))


def _split(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS))


def _options() -> SessionOptions:
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options
