"""The rows that never leave the device."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.config import EX_DATAERR
from fd_runtime.model import I64

HOLD_OUT_EVERY = 10
"""One row in ten is kept for the guard, where that gives at least ten."""
MIN_HOLD_OUT_ROWS = 10


class PrivateDataError(FedistillError):
    """The private rows cannot be read, or are not what the task asks for."""

    exit_code = EX_DATAERR


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
        is_held_out = np.arange(len(self)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        if is_held_out.sum() < MIN_HOLD_OUT_ROWS:
            is_held_out[:] = False
        return ~is_held_out, is_held_out


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
