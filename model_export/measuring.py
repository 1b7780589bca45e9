"""What a bundle's manifest says of the samples it was made with, so that devices notice when theirs become others."""

from __future__ import annotations

import onnx

from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import Task
from fd_protocol.reference import Reference
from fd_protocol.soft_labels import soften
from fd_runtime.models.model import Inputs
from fd_runtime.models.onnx_model import OnnxBackbone, OnnxTail
from fd_runtime.models.reference import MIN_ROWS, pooled, reference_of

MOST_ROWS = 2000
"""Samples that are looked at: twice as many would sharpen a comparison with 300 of a device's by 6 %."""


def measure(
    inputs: Inputs, task: Task, backbone: onnx.ModelProto | None, tail: onnx.ModelProto, layout: ThetaLayout
) -> Reference | None:
    """Return the reference that preprocessed samples make of a model; None where they are too few to tell.

    Args:
        inputs: [n, *sample_shape], like the samples to come.
        task: what they are.
        backbone: as devices run it; None: the tail reads the samples.
        tail: with the bundle's own parameters.
        layout: of these.
    """
    if len(inputs) < MIN_ROWS:
        return None
    features = OnnxBackbone(backbone.SerializeToString()).extract(inputs) if backbone is not None else inputs
    logits = OnnxTail(tail.SerializeToString(), layout).logits(features)
    return reference_of(pooled(features, task.vocabulary), soften(logits, 1.0).max(axis=1))
