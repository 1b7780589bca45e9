"""The rows that never leave the device: a file of them, and whatever else is `Private`."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.learning.seen import each
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.config import EX_DATAERR
from fd_runtime.models.model import F32, I64, Features
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import Space

HOLD_OUT_EVERY = 10
"""One row in ten is kept for the guard, where that gives at least ten."""
MIN_HOLD_OUT_ROWS = 10


class PrivateDataError(FedistillError):
    """The private rows cannot be read, or are not what the task asks for."""

    exit_code = EX_DATAERR


class Private(Protocol):
    """Labelled rows of one moment, wherever they lie."""

    @property
    def labels(self) -> I64:
        """Return int64 [n]."""
        ...

    def __len__(self) -> int: ...

    def split(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return masks [n] of the rows to train on and of the hold-out."""
        ...

    def features(self, model: LoadedModel, went_on: Callable[[], object] = lambda: None) -> Features:
        """Return what the tail of `model` reads of them, [n, ...]; `went_on` is called after every few."""
        ...

    def located(self, space: Space, task: Task) -> F32:
        """Return where they lie in the space of competence: float32 [m, dimensions]; some may be gone by now."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateRows:
    """Samples [n, ...] as the task describes them, before preprocessing, and their labels int64 [n].

    `is_held_out`, bool [n], says which of them are never trained on; None = nobody has decided yet (`split`).
    """

    samples: npt.NDArray[np.generic]
    labels: I64
    is_held_out: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise InvalidValueError(f"{len(self.samples)} samples but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def split(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return masks [n] of the rows to train on and of the hold-out.

        Where nobody has decided, too few rows leave the hold-out empty.
        """
        if self.is_held_out is not None:
            return ~self.is_held_out, self.is_held_out
        is_held_out: npt.NDArray[np.bool_] = np.arange(len(self)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        if is_held_out.sum() < MIN_HOLD_OUT_ROWS:
            is_held_out[:] = False
        return ~is_held_out, is_held_out

    def features(self, model: LoadedModel, went_on: Callable[[], object] = lambda: None) -> Features:
        task = model.manifest.task
        # No runtime promises to bear a batch of no rows; one row of zeros tells the features' shape.
        samples = self.samples if len(self) else np.zeros((1, *task.sample_shape), task.sample_dtype)
        return each(samples, task, model.features, went_on)[: len(self)]

    def located(self, space: Space, task: Task) -> F32:
        return each(self.samples, task, space.locate)


def load_private_rows(path: Path, sample_shape: tuple[int, ...], classes: int) -> PrivateRows:
    """Return the rows in the npz file at `path`: `x` [n, *sample_shape] and integer `y` [n] below `classes`.

    Raises:
        PrivateDataError: the file is missing, is no npz, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            samples, labels = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise PrivateDataError(f"{path}: not a readable npz file of arrays x and y") from error
    if samples.shape[1:] != sample_shape or labels.shape != samples.shape[:1]:
        raise PrivateDataError(
            f"{path}: expected x [n, {', '.join(map(str, sample_shape))}] and y [n], "
            f"found x {list(samples.shape)} and y {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise PrivateDataError(f"{path}: y must be integers from 0 to {classes - 1}")
    return PrivateRows(samples, labels.astype(np.int64))
