"""How many rows fit: the megabytes of the settings, cut into rows of this task and shared out among the pools.

A row is counted as SQLite lays it out (sqlite.org/fileformat2.html, section 1.6): blobs of a page or less lie side by
side in pages, longer ones have pages of their own for all but the rest. Pages of small rows are half empty after a
while, as rows come and go at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_agent.private.facts import Pool
from edge_agent.private.settings import StoreSettings
from fd_protocol.errors import FedistillError
from fd_protocol.manifest import FeatureSpec, Task
from fd_runtime.config import EX_CONFIG

_PAGE_BYTES, _USABLE_BYTES, _OVERFLOW_BYTES = 4096, 4070, 4092
_LEAST_LOCAL_BYTES, _MOST_LOCAL_BYTES = 489, 4061
"""Of a blob that has pages of its own, so much stays beside other rows."""
_CELL_BYTES = 16
"""Of SQLite's own, beside a blob."""
_SPARSE = 1.5
"""Pages for each that would do if they were full."""
_FACTS_BYTES, _SEAL_BYTES = 200, 28
_LOG_SHARE, _LOG_MAX_BYTES = 8, 4 << 20
"""Of the megabytes this part is the log's, up to so much."""


class StoreTooSmallError(FedistillError):
    """Nothing is left for labelled rows."""

    exit_code = EX_CONFIG


@dataclass(frozen=True, slots=True)
class Capacity:
    """Most rows of each pool, and bytes of the log beside the file."""

    rows: Mapping[Pool, int]
    log_bytes: int


def capacity_of(settings: StoreSettings, task: Task, features: FeatureSpec | None) -> Capacity:
    """Share out the room: questions, guesses and rows that wait get what the settings say, labelled rows the rest.

    Raises:
        StoreTooSmallError: too little is left for a labelled row of each class.
    """
    log_bytes = min(_LOG_MAX_BYTES, (settings.megabytes << 20) // _LOG_SHARE)
    row_bytes = _on_disk(_FACTS_BYTES) + _on_disk(_bytes_of(task.sample_shape, task.sample_dtype))
    if features is not None:
        row_bytes += _on_disk(_bytes_of(features.shape, features.dtype))
    # A row that takes another's place stands in the log, and so do the zeros over the other.
    total = min(settings.rows, ((settings.megabytes << 20) - log_bytes * 5 // 4) // row_bytes - 3)
    guessed = 0 if settings.guesses is None else int(total * settings.guesses.share)
    labelled = total - settings.questions - settings.awaiting - guessed
    if labelled < len(task.classes):
        raise StoreTooSmallError(
            f"{total} rows of {row_bytes} bytes fit, and {settings.questions} questions, {settings.awaiting} waiting "
            f"rows and {guessed} guesses leave {labelled} for labelled ones: give it more megabytes, or rows"
        )
    return Capacity(
        {
            Pool.LABELLED: labelled,
            Pool.GUESSED: guessed,
            Pool.ASKED: settings.questions,
            Pool.AWAITING: settings.awaiting,
        },
        log_bytes,
    )


def _bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _on_disk(blob_bytes: int) -> int:
    local, pages = blob_bytes + _SEAL_BYTES, 0
    if local > _MOST_LOCAL_BYTES:
        pages, rest = divmod(local - _LEAST_LOCAL_BYTES, _OVERFLOW_BYTES)
        local = _LEAST_LOCAL_BYTES + rest
        if local > _MOST_LOCAL_BYTES:
            local, pages = _LEAST_LOCAL_BYTES, pages + 1
    in_a_page = max(1, _USABLE_BYTES // (local + _CELL_BYTES))
    beside = _PAGE_BYTES / in_a_page * (_SPARSE if in_a_page > 1 else 1)
    return pages * _PAGE_BYTES + math.ceil(beside)
