"""Where an int8 backbone loses precision: each of its tensors beside the same tensor of the float backbone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32, Inputs
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.forward import FEATURES
from model_export.verification.graphs import as_numbers, showing

_ROWS = 64
_STORED = ".float"
"""What a tensor is called once it went through 8 bits (`quantisation.rewriting`)."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """One tensor of the backbone.

    Attributes:
        tensor: its name.
        op: what makes it.
        sqnr_db: 10 log10 of the mean square of the float tensor over that of the difference; high is good, and each
            bit is worth about 6 dB. Infinite where both are equal.
    """

    tensor: str
    op: str
    sqnr_db: float


def layer_errors(bundle: Bundle, inputs: Inputs) -> tuple[LayerError, ...]:
    """Return a line for each tensor that both backbones make, in the order in which they make it.

    Args:
        bundle: none but int8 bundles with their float backbone have lines.
        inputs: preprocessed samples [n, *sample_shape]; the first 64 are used.
    """
    files = bundle.manifest.files
    if Role.BACKBONE not in files or Role.BACKBONE_FLOAT not in files:
        return ()
    exact, rounded = (onnx.load_from_string(bundle.read(role)) for role in (Role.BACKBONE_FLOAT, Role.BACKBONE))
    feed = {"input": inputs[:_ROWS]}
    expected, found = (OnnxGraph(showing(model).SerializeToString()).run(feed) for model in (exact, rounded))
    makers = {name: node.op_type for node in exact.graph.node for name in node.output}
    stored = {name: found[name + _STORED] for name in makers if name in expected and name + _STORED in found}
    stored[FEATURES] = as_numbers(found[FEATURES], bundle.manifest.features)
    return tuple(LayerError(name, makers[name], _sqnr_db(expected[name], value)) for name, value in stored.items())


def _sqnr_db(expected: F32, found: F32) -> float:
    signal, noise = np.square(expected, dtype=np.float64).mean(), np.square(expected - found, dtype=np.float64).mean()
    return float(10 * np.log10(signal / noise)) if noise else float("inf")
