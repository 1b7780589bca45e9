"""References made and read: features pooled to a few numbers, and where these lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fd_protocol.reference import Binned, Reference
from fd_runtime.models.model import F32, Features

POOLED = 16
"""Numbers that are left of a sample's features: enough to see a shift, and 5 kB of a manifest."""
MIN_ROWS = 100
"""Fewer samples tell too little of where a number lies."""
_BINS = 10
_DIGITS = 6


def pooled(features: Features, vocabulary: int | None = None) -> F32:
    """Return float32 [n, at most 16]: what is compared of features [n, ...], as the tail reads them.

    Channels of maps are averaged over their places, then neighbours are averaged until few enough are left. A missing
    value counts as nothing. Of token numbers (`vocabulary`), where nothing embeds them, it is the share in each range.

    Args:
        features: of any type; what codes stand for does not matter, order does.
        vocabulary: of the task, if `features` are its tokens.
    """
    if features.dtype == np.int32:
        return _token_shares(features.reshape(len(features), -1), vocabulary or int(features.max(initial=0)) + 1)
    flat = features.reshape(len(features), features.shape[1], -1).mean(axis=2, dtype=np.float32)
    flat = np.nan_to_num(flat, copy=False)
    if flat.shape[1] <= POOLED:
        return np.asarray(flat, np.float32)
    starts = np.linspace(0, flat.shape[1], POOLED + 1).astype(np.intp)
    sums = np.add.reduceat(flat, starts[:-1], axis=1)
    return np.asarray(sums / np.diff(starts), np.float32)


def _token_shares(tokens: npt.NDArray[Any], vocabulary: int) -> F32:
    ranges = np.minimum(tokens.astype(np.int64) * POOLED // vocabulary, POOLED - 1)
    counts = np.stack([(ranges == one).sum(axis=1) for one in range(POOLED)], axis=1)
    return np.asarray(counts / max(1, tokens.shape[1]), np.float32)


def reference_of(features: F32, confidence: F32 | None) -> Reference:
    """Return the reference that pooled features [n, d] and confidences [n] make."""
    spreads = tuple(binned(column) for column in features.T)
    return Reference(len(features), spreads, None if confidence is None else binned(confidence))


def binned(values: F32) -> Binned:
    """Return where `values` [n] lie: by tenths, fewer where many are equal."""
    tenths = np.quantile(values.astype(np.float64), np.arange(1, _BINS) / _BINS)
    edges = sorted({_short(edge) for edge in tenths} - {_short(float(values.min()))})
    return Binned(tuple(edges), tuple(_short(share) for share in counts_of(tuple(edges), values) / len(values)))


def counts_of(edges: tuple[float, ...], values: F32) -> npt.NDArray[np.int64]:
    """Return how many of `values` lie in each bin: int64 [len(edges) + 1]."""
    places = np.searchsorted(np.array(edges, np.float64), values.astype(np.float64), side="right")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.int64)


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
