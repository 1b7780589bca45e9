"""How alike the variants of a bundle answer: float, int8 on onnxruntime, and every runtime it was proven on.

Not bitwise: int8 on two runtimes differs by about a tenth of a logit where both are right. What counts is told apart:
accuracy (if labels are known), how often the argmax is the same, and how far logits and probabilities lie apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle, Runtime
from fd_runtime.models.model import F32, I64, Inputs
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.forward import FEATURES
from model_export.proving import interpreter_for, logits_on
from model_export.quantisation.differences import Difference
from model_export.verification.graphs import LOGITS, float_tail

REFERENCE = "float"
"""The variant that the others are held against: backbone and tail in float32 on onnxruntime."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Parity:
    """One variant beside the reference.

    Attributes:
        variant: `float`, or the name of a runtime.
        accuracy: share of labels hit, None without labels.
        agreement: share of rows whose argmax is the reference's.
        logit_rmse: root mean squared difference of the logits.
        kl_nats: mean Kullback-Leibler divergence from the reference's softmax to the variant's, temperature 1.
    """

    variant: str
    accuracy: float | None
    agreement: float
    logit_rmse: float
    kl_nats: float


def compare(logits: Mapping[str, F32], labels: I64 | None) -> tuple[Parity, ...]:
    """Return a line for each variant of `logits` [n, classes]; `float` must be among them.

    Args:
        logits: by variant.
        labels: int64 [n], if somebody knows them.
    """
    reference = logits[REFERENCE]
    return tuple(_compare(name, found, reference, labels) for name, found in logits.items())


def logits_of(bundle: Bundle, inputs: Inputs, runtimes: Sequence[Runtime]) -> dict[str, F32]:
    """Return the logits of preprocessed samples by variant: float first, then each of `runtimes`.

    Raises:
        UnverifiedRuntimeError: the bundle was not proven on one of them.
        ModelError, InterpreterError: a runtime is not installed here.
    """
    found = {REFERENCE: _float_logits(bundle, inputs)}
    for runtime in runtimes:
        found[runtime] = logits_on(bundle, runtime, inputs, interpreter_for(runtime))
    return found


def _float_logits(bundle: Bundle, inputs: Inputs) -> F32:
    backbone = _float_backbone(bundle)
    tail = OnnxGraph(float_tail(onnx.load_from_string(bundle.read(Role.TAIL))).SerializeToString())
    parts = []
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        rows = inputs[start : start + _ROWS_AT_ONCE]
        features = rows if backbone is None else backbone.run({"input": rows})[FEATURES]
        parts.append(tail.run({FEATURES: features})[LOGITS])
    return np.concatenate(parts)


def _float_backbone(bundle: Bundle) -> OnnxGraph | None:
    manifest = bundle.manifest
    if manifest.features is None:
        return None
    role = Role.BACKBONE if manifest.features.dtype == "float32" else Role.BACKBONE_FLOAT
    return OnnxGraph(bundle.read(role))


def _compare(name: str, found: F32, reference: F32, labels: I64 | None) -> Parity:
    difference = Difference.between(reference, found)
    return Parity(
        variant=name,
        accuracy=None if labels is None else float((found.argmax(axis=1) == labels).mean()),
        agreement=difference.agreement,
        logit_rmse=difference.rmse,
        kl_nats=difference.kl,
    )
