"""Histograms of what was said of each cell: order statistics of any number of voices in the memory of one.

A probability is told apart in 256 steps of its square root, the resolution of codec `u8-sqrt`, the finest in use for
which a histogram is small. An order statistic of rounded values is the rounded order statistic, so what is read from
the bins is exact on that scale, and lies within half a step of what the unrounded values give.

A cell's bins take 1 KiB, however many voices there are. Slices of more cells than fit `BUDGET_BYTES` are heard in
several passes, a block of rows in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from broker_server.rules.voice import Voice, heard, normalise
from fd_protocol.bodies import U8
from fd_protocol.quantisers import I64, ONE
from fd_protocol.soft_labels import F32

I32: TypeAlias = npt.NDArray[np.int32]

BINS = 256
SQUARES: I64 = np.arange(BINS, dtype=np.int64) ** 2
"""The probability that each bin stands for, 255^2 for 1."""
BUDGET_BYTES = 64 << 20
_CELLS_AT_ONCE = 512
_CELL_BYTES = BINS * np.dtype(np.int32).itemsize


def levels_of(integers: I64) -> U8:
    """Return the bins of labels: round(255 sqrt(p)), uint8 of the same shape."""
    levels: U8 = np.rint((BINS - 1) * np.sqrt(np.minimum(integers, ONE) / ONE)).astype(np.uint8)
    return levels


def by_cell(voices: Iterable[Voice], statistic: Callable[[I32], I64], budget_bytes: int = BUDGET_BYTES) -> F32:
    """Return a statistic of each cell, rows normalised to sum 1: float32 [n, classes].

    A row of which the statistic leaves nothing is uniform: no class is likely to enough devices.

    Args:
        voices: who speak; a collection where there are more cells than the budget holds.
        statistic: of the cumulated weight of voices up to each bin, int32 [cells, BINS] -> int64 [cells] >= 0.
        budget_bytes: for bins.
    """
    blocks: list[I64] = []
    start, rows_total = 0, 1
    while start < rows_total:
        bins: I32 | None = None
        for voice in heard(voices):
            rows_total, classes = voice.integers.shape
            stop = min(rows_total, start + max(1, budget_bytes // (_CELL_BYTES * classes)))
            if bins is None:
                cells = (stop - start) * classes
                bins, firsts = np.zeros(cells * BINS, np.int32), np.arange(0, cells * BINS, BINS)
            bins[firsts + levels_of(voice.integers[start:stop]).ravel()] += voice.weight
        assert bins is not None
        blocks.append(_of_cells(bins.reshape(-1, BINS), statistic).reshape(-1, classes))
        start = stop
    values = np.concatenate(blocks)
    return normalise(np.where(values.any(axis=1, keepdims=True), values, 1))


def _of_cells(bins: I32, statistic: Callable[[I32], I64]) -> I64:
    """Return the statistic of each cell; few at a time, so that what is cumulated stays in the processor's cache."""
    parts = (bins[start : start + _CELLS_AT_ONCE] for start in range(0, len(bins), _CELLS_AT_ONCE))
    return np.concatenate([statistic(np.cumsum(part, axis=1, dtype=np.int32)) for part in parts])
