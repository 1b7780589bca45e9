"""How many rows a train step may have at once, so that its tensors fit the owner's bound.

A bundle says what a step of its batch needs (`Costs.train_peak_bytes`, planned from the graph and true to the byte,
docs/adr/0011). Weights, the optimizer's vectors, gradient, update and the graph's constants are there whatever the
batch; the rest grows with the rows. The peak over rows is convex: a straight line that begins no lower than the peak at
no rows and ends at that of the batch is nowhere below it. Beyond the batch the line begins at the least instead.

No manifest tells the peak at no rows. It is counted from theta and the graph, which is right for dense layers and
convolutions without weight decay; with it, or where depthwise layers or biases alone train, a step of few rows may
take more.

Where a batch does not fit, steps have fewer rows, and there are more of them: the graph takes its optimizer's step at
once, so the sum of several parts is not to be had from it (but where noise is added: `privacy.training`). That is other
arithmetic: more and noisier steps, an epoch of the same rows. docs/agent/training.md has what it costs.

What is deliberately absent: what kernels need while they compute, and the runtime itself, 46 MB of onnxruntime.
"""

from __future__ import annotations

import logging

from fd_protocol.manifest import Manifest, Role
from fd_runtime.fitting import FitTerms

MB = 1e6
_FLOAT_BYTES = 4
_INPUTS_BESIDE_SLOTS, _OUTPUTS_BESIDE_SLOTS = 2, 1
"""theta and reference; theta.new. Every slot is both."""
_GRADIENT_AND_UPDATE = 3
"""Vectors of theta's size that a step needs in between: the gradient in pieces and whole, and what is made of it."""

log = logging.getLogger("edge-agent")


def batch_within(manifest: Manifest, memory_mb: float) -> int:
    """Return the rows of a batch: as many as always, or fewer where the bundle's step was made for fewer.

    LiteRT's has that number of rows and no other, and what a step costs was reckoned with it.
    """
    return rows_within(manifest, memory_mb, min(FitTerms().batch_rows, manifest.training.batch))


def rows_within(manifest: Manifest, memory_mb: float, most: int) -> int:
    """Return how many rows a step may have: at least 1, at most `most`; that where nothing bounds or nobody counted."""
    if not memory_mb or manifest.costs is None:
        return most
    bound, peak, batch = MB * memory_mb, manifest.costs.train_peak_bytes, manifest.training.batch
    vectors = _FLOAT_BYTES * manifest.layout.size
    least = min(peak, vectors * (_INPUTS_BESIDE_SLOTS + _OUTPUTS_BESIDE_SLOTS + 2 * len(manifest.training.slots)))
    if bound >= peak:
        return min(most, batch + int((bound - peak) // max(1.0, (peak - least) / batch)))
    fixed = min(peak, least + vectors * _GRADIENT_AND_UPDATE + manifest.files[Role.TRAIN_STEP].size_bytes)
    rows = int((bound - fixed) // max(1.0, (peak - fixed) / batch))
    if rows < 1:
        log.warning("a train step may take more than memory_mb = %g, even with one row at a time", memory_mb)
    return max(1, min(most, rows))
