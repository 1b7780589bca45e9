"""A data set as fleet-sim plays it: samples as a device records them, their classes, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import I64


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset:
    """Labelled samples of one task. Its arrays are read-only.

    Attributes:
        name: for reports.
        task: the classes, and what a sample is.
        samples: [n, *sample_shape] of the task's type; NaN = a value is missing.
        labels: [n], class numbers.
        groups: [n], who recorded a sample, as a place in `group_names`; None = nobody said.
        group_names: the users, sites or speakers.
        published_test: so many rows at the end are the test set of who published the data; 0 = there is none.
        source: where it is from, for reports.
        licence: SPDX expression, or what the source says.
    """

    name: str
    task: Task
    samples: npt.NDArray[np.generic]
    labels: I64
    groups: I64 | None = None
    group_names: tuple[str, ...] = ()
    published_test: int = 0
    source: str
    licence: str

    def __post_init__(self) -> None:
        self._check_samples()
        self._check_groups()
        for array in (self.samples, self.labels, self.groups):
            if array is not None:
                array.flags.writeable = False

    def _check_samples(self) -> None:
        task, count = self.task, len(self.labels)
        if self.samples.shape != (count, *task.sample_shape) or self.samples.dtype != np.dtype(task.sample_dtype):
            raise InvalidValueError(
                f"{self.name}: samples {self.samples.dtype} {list(self.samples.shape)} are no task's"
            )
        if not _are_places(self.labels, len(task.classes)):
            raise InvalidValueError(f"{self.name}: a label is no class")
        if not 0 <= self.published_test <= count:
            raise InvalidValueError(f"{self.name}: {self.published_test} of {count} rows cannot be the test set")

    def _check_groups(self) -> None:
        groups, names = self.groups, self.group_names
        if (groups is None) != (not names) or len(set(names)) < len(names):
            raise InvalidValueError(f"{self.name}: groups have names, each its own")
        if groups is not None and (len(groups) != len(self.labels) or not _are_places(groups, len(names))):
            raise InvalidValueError(f"{self.name}: a sample's group has no name")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: I64) -> Dataset:
        """Return these rows, in this order; nothing is then the published test set."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, samples=self.samples[rows], labels=self.labels[rows], groups=groups, published_test=0)


def numbered(names: Sequence[str]) -> tuple[I64, tuple[str, ...]]:
    """Return each name's place among the sorted different ones, and those."""
    different, places = np.unique(np.asarray(names), return_inverse=True)
    return places.astype(np.int64).reshape(-1), tuple(map(str, different))


def _are_places(numbers: I64, count: int) -> bool:
    is_vector = numbers.dtype == np.int64 and numbers.ndim == 1
    return is_vector and (not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < count))
