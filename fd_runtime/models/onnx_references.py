"""Graphs that point out of their file: a bundle vouches for its files, so a graph may read nothing beside them.

ONNX lets a tensor be a place in another file (`external_data`), and onnxruntime opens whatever file is named there,
from the working directory if the graph came as bytes. No manifest holds the digest of that file.
"""

from __future__ import annotations

from collections.abc import Mapping

from fd_runtime.models.model import ModelError
from fd_runtime.models.onnx_parameters import Span, fields

# Where tensors can be in onnx.proto3: field numbers of a message that lead to another one.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "reference"},
}
_MARK = b"location"
"""The key under which a tensor names its file: bytes without it name none."""


def check_self_contained(model: bytes) -> None:
    """Raises: ModelError: a tensor of the serialized graph, wherever it is, is in another file."""
    if _MARK not in model:  # nearly always, in a millisecond
        return
    messages: list[tuple[str, Span]] = [("model", (0, len(model)))]
    while messages:
        kind, span = messages.pop()
        if kind == "reference":
            raise ModelError("a tensor of the graph is in another file, which no manifest vouches for")
        inside = _INSIDE[kind]
        messages += [(inside[number], place) for number, place in fields(model, span) if number in inside]
