"""What a model saw where it was made, as numbers: what a device compares its own samples with to notice drift.

    features     of the calibration samples, pooled to a few numbers each: where each of these numbers lies
    confidence   of the likeliest class, for the bundle's own parameters

Shares of bins, never a sample. A device that learns gets another confidence, and a release other parameters: whoever
has no reference for it learns one from its first samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from fd_protocol.identity import require

MAX_POOLED = 64
MAX_BINS = 64


@dataclass(frozen=True, slots=True)
class Binned:
    """Where a number lies: the share of values below the first edge, between each two, and from the last one on.

    A value on an edge belongs above it. No edges: the number was constant, and its one share is 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.shares) == len(self.edges) + 1 <= MAX_BINS, "bins are one more than edges, at most 64")
        require(all(math.isfinite(edge) for edge in self.edges), "an edge is finite")
        require(all(low < high for low, high in pairwise(self.edges)), "edges ascend")
        require(all(0.0 <= share <= 1.0 for share in self.shares), "a share lies in [0, 1]")
        require(abs(sum(self.shares) - 1.0) < 1e-3, "shares sum to 1")


@dataclass(frozen=True, slots=True)
class Reference:
    """Of `rows` samples; features pooled as in `fd_runtime.models.reference`; no confidence: of other parameters."""

    rows: int
    features: tuple[Binned, ...]
    confidence: Binned | None = None

    def __post_init__(self) -> None:
        require(self.rows > 0, "a reference is of at least 1 row")
        require(0 < len(self.features) <= MAX_POOLED, "a reference has 1 to 64 features")
