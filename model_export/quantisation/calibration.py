"""The range of every activation, from what a float backbone computes for calibration samples.

`percentile` and `entropy` look at a histogram of each tensor, in a second pass over the samples whose bins the first
one fixed: batches may be ragged, and no activation is kept.

Values that are not finite count nowhere: a missing value is NaN, a mask of attention -inf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from model_export.quantisation.codes import Scaling
from model_export.quantisation.running import run_through
from model_export.quantisation.terms import QuantisationTerms

Range: TypeAlias = tuple[float, float]
Counts: TypeAlias = npt.NDArray[np.int64]

_BINS = 2048
_LEVELS = 256
_FULL_BIN = 99  # percentile of the counts
_SHRINKS = np.linspace(1.0, 0.2, 81)


def calibrate(model: onnx.ModelProto, samples: npt.NDArray[Any], terms: QuantisationTerms) -> Mapping[str, Scaling]:
    """Return the scaling of every float tensor that `model` computes from its samples, the input included."""
    ranges = _extremes(model, samples)
    if terms.method in ("percentile", "entropy"):
        counts = _histograms(model, samples, ranges)
        if terms.method == "percentile":
            ranges = {name: percentile_range(counts[name], ranges[name], terms.percentile) for name in ranges}
        else:
            ranges = {name: entropy_range(counts[name], ranges[name]) for name in ranges}
    return {name: Scaling.of_range(*each) for name, each in ranges.items()}


def percentile_range(counts: Counts, extremes: Range, percentile: float) -> Range:
    """Return the range between the (100 - percentile)-th and the percentile-th percentile, to the width of a bin."""
    low, high = extremes
    if low >= high:
        return extremes
    cumulated, width = np.cumsum(counts) / counts.sum(), (high - low) / len(counts)
    outside = 1.0 - percentile / 100.0
    first = int(np.searchsorted(cumulated, outside, side="right"))
    last = int(np.searchsorted(cumulated, 1.0 - outside, side="left"))
    return low + first * width, low + (min(last, len(counts) - 1) + 1) * width


def entropy_range(counts: Counts, extremes: Range) -> Range:
    """Return the range, of those that shrink to 0 from both ends alike, whose 256 codes lose the least information.

    Migacz 2017, "8-bit inference with TensorRT": least divergence of the coded distribution from the true one, whose
    outliers stand at the ends of the range. Values that come again and again, as zeros do behind a rectifier
    and a picture's background anywhere, fill a bin that would outweigh all others: it is cut down to a full one.
    """
    low, high = extremes
    if low >= high:
        return extremes
    centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    counts = np.minimum(counts, int(np.percentile(counts[counts > 0], _FULL_BIN)))
    losses = [_divergence(counts, centres, low * shrink, high * shrink) for shrink in _SHRINKS]
    best = _SHRINKS[int(np.argmin(losses))]
    return low * best, high * best


def _divergence(counts: Counts, centres: npt.NDArray[np.float64], low: float, high: float) -> float:
    """Kullback-Leibler divergence, in nats, of what 256 codes on [low, high] can tell from the clipped histogram.

    A range that holds no bin tells nothing: infinity.
    """
    inside = np.flatnonzero((centres >= min(low, 0.0)) & (centres <= max(high, 0.0)))
    if not len(inside):
        return np.inf
    first, last = inside[0], inside[-1]
    kept = counts[first : last + 1].astype(np.float64)
    true = kept.copy()
    true[0] += counts[:first].sum()
    true[-1] += counts[last + 1 :].sum()
    level = np.arange(len(kept)) * _LEVELS // len(kept)
    filled = kept > 0
    share = np.bincount(level, kept, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
    told = np.where(filled, share[level], 0.0)
    p, q = true / true.sum(), told / max(told.sum(), 1.0)
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-9))))


def _extremes(model: onnx.ModelProto, samples: npt.NDArray[Any]) -> dict[str, Range]:
    """Return the least and the greatest finite value of each tensor; (0, 0) where there is none."""
    ranges: dict[str, Range] = {}
    for tensors in run_through(model, samples):
        for name, content in tensors.items():
            low, high = ranges.get(name, (np.inf, -np.inf))
            finite = np.isfinite(content)
            ranges[name] = (
                float(np.min(content, initial=low, where=finite)),
                float(np.max(content, initial=high, where=finite)),
            )
    return {name: each if each[0] <= each[1] else (0.0, 0.0) for name, each in ranges.items()}


def _histograms(model: onnx.ModelProto, samples: npt.NDArray[Any], ranges: Mapping[str, Range]) -> dict[str, Counts]:
    counts = {name: np.zeros(_BINS, np.int64) for name in ranges}
    for tensors in run_through(model, samples):
        for name, content in tensors.items():
            counts[name] += np.histogram(content, _BINS, ranges[name])[0]
    return counts
