"""Readings -> samples: a reading is one, or a window of them along the task's axis of time.

    readings  r1 r2 r3 r4 r5 r6 r7 ...
    windows   [r1 r2 r3 r4]                 length 4 (the task's), stride 2
                    [r3 r4 r5 r6]

A pause that is too long begins the window anew: a window has no holes. A window has the label on which all of its
readings agree, and the id of its last one. Pure.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.sources.settings import FieldSettings
from edge_agent.sources.source import SourceError
from fd_protocol.manifest import Task


def time_axis_of(task: Task, fields: int) -> int | None:
    """Return the axis along which readings of so many fields make a sample; None: one reading is a sample.

    Raises:
        SourceError: no such readings make a sample, or the task must say which axis is meant.
    """
    shape, numbers = task.sample_shape, math.prod(task.sample_shape)
    if task.time_axis is not None:
        axes = [task.time_axis] if math.prod(task.reading_shape) == fields else []
    elif fields == numbers:
        return None
    else:
        axes = [axis for axis, extent in enumerate(shape) if fields * extent == numbers]
    if not axes:
        raise SourceError(f"readings of {fields} fields make no sample of shape {list(shape)}")
    if len(axes) > 1:
        raise SourceError(f"a sample of shape {list(shape)} has its time on axis {axes}: say `time_axis` in the task")
    return axes[0]


def in_columns(fields: Sequence[FieldSettings], task: Task) -> list[FieldSettings]:
    """Return the fields in the order of the task's columns; as they are where it names none.

    Raises:
        SourceError: a column has no field, or a field is no column.
    """
    if task.columns is None:
        return list(fields)
    named = {field.column: field for field in fields}
    missing, strange = [name for name in task.columns if name not in named], sorted(named.keys() - set(task.columns))
    if missing or strange:
        raise SourceError(
            f"columns without a field: {missing or 'none'}; fields that are no column: {strange or 'none'}"
        )
    return [named[name] for name in task.columns]


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A sample [*sample_shape], its label and its own id, where it has them."""

    sample: npt.NDArray[Any]
    label: str | int | float | None
    own_id: str | int | float | None


@dataclass(frozen=True, slots=True)
class _Reading:
    numbers: Sequence[float]
    at_s: float
    label: str | int | float | None


class Window:
    """The readings of one stream.

    Args:
        task: what a sample is.
        fields: numbers of a reading.
        stride: readings from one window to the next; 0 = as many as it has.
        gap_s: a longer pause begins it anew; 0 = no bound.

    Raises:
        SourceError: see `time_axis_of`.
    """

    def __init__(self, task: Task, fields: int, *, stride: int, gap_s: float) -> None:
        self._task, self._axis, self._gap_s = task, time_axis_of(task, fields), gap_s
        self._length = 1 if self._axis is None else task.sample_shape[self._axis]
        self._stride = stride or self._length
        self._readings: deque[_Reading] = deque(maxlen=self._length)
        self._pause = 0
        """Readings to pass over, where the stride is longer than a window."""
        self._last_s: float | None = None

    def push(
        self,
        numbers: Sequence[float],
        now_s: float,
        label: str | float | None = None,
        own_id: str | float | None = None,
    ) -> Ready | None:
        """Take a reading; return the sample that it completes.

        Raises:
            SourceError: the task's type does not hold the numbers.
        """
        if self._last_s is not None and self._gap_s and now_s - self._last_s > self._gap_s:
            self._readings.clear()
            self._pause = 0
        self._last_s = now_s
        if self._pause:
            self._pause -= 1
            return None
        self._readings.append(_Reading(numbers, now_s, label))
        if len(self._readings) < self._length:
            return None
        ready = Ready(self._sample(), self._label(), own_id)
        for _ in range(min(self._stride, self._length)):
            self._readings.popleft()
        self._pause = max(0, self._stride - self._length)
        return ready

    def _sample(self) -> npt.NDArray[Any]:
        rows = [np.array(reading.numbers, np.float64) for reading in self._readings]
        if self._axis is None:
            values = rows[0].reshape(self._task.sample_shape)
        else:
            extents = [extent for axis, extent in enumerate(self._task.sample_shape) if axis != self._axis]
            values = np.stack([row.reshape(extents) for row in rows], axis=self._axis)
        return _in_type(values, self._task)

    def _label(self) -> str | int | float | None:
        labels = {reading.label for reading in self._readings}
        return labels.pop() if len(labels) == 1 else None


def _in_type(values: npt.NDArray[np.float64], task: Task) -> npt.NDArray[Any]:
    dtype = np.dtype(task.sample_dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(dtype)
    fits = np.array_equal(cast, values) if dtype.kind in "iu" else not np.isinf(cast).any()
    if task.vocabulary is not None:
        fits = fits and bool(cast.min() >= 0 and cast.max() < task.vocabulary)
    if not fits:
        raise SourceError(f"{values.ravel()[:8].tolist()} do not fit samples of {dtype}")
    return np.ascontiguousarray(cast)
