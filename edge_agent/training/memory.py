"""How many rows a train step may have at once, so that its tensors fit the owner's bound.

A bundle says what a step of its batch needs (`Costs.train_peak_bytes`, planned from the graph and true to the byte,
docs/adr/0011). Weights and the optimizer's vectors are there whatever the batch; the rest grows with the rows.

Where a batch does not fit, steps have fewer rows, and there are more of them: the graph takes its optimizer's step at
once, so the sum of several parts is not to be had from it (but where noise is added: `privacy.training`). That is other
arithmetic: more and noisier steps, an epoch of the same rows. docs/agent/training.md has what it costs.

What is deliberately absent: what kernels need while they compute, and the runtime itself, 46 MB of onnxruntime.
"""

from __future__ import annotations

from fd_protocol.manifest import Manifest
from fd_runtime.fitting import FitTerms

MB = 1e6
_FLOAT_BYTES = 4
_INPUTS_BESIDE_SLOTS, _OUTPUTS_BESIDE_SLOTS = 2, 1
"""theta and reference; theta.new. Every slot is both."""


def batch_within(manifest: Manifest, memory_mb: float) -> int:
    """Return the rows of a batch: as many as always, or fewer where the bundle's step was made for fewer.

    LiteRT's has that number of rows and no other, and what a step costs was reckoned with it.
    """
    return rows_within(manifest, memory_mb, min(FitTerms().batch_rows, manifest.training.batch))


def rows_within(manifest: Manifest, memory_mb: float, most: int) -> int:
    """Return how many rows a step may have: at least 1, at most `most`; that where nothing bounds or nobody counted."""
    if not memory_mb or manifest.costs is None:
        return most
    fixed, of_a_row = _parts(manifest, manifest.costs.train_peak_bytes)
    return max(1, min(most, int((MB * memory_mb - fixed) // of_a_row)))


def _parts(manifest: Manifest, peak_bytes: int) -> tuple[float, float]:
    """Return the bytes that are always there, and those of a row. What is called fixed is the least that it can be."""
    vectors = _INPUTS_BESIDE_SLOTS + _OUTPUTS_BESIDE_SLOTS + 2 * len(manifest.training.slots)
    fixed = min(peak_bytes, _FLOAT_BYTES * manifest.layout.size * vectors)
    return fixed, max(1.0, (peak_bytes - fixed) / manifest.training.batch)
