"""Reading samples for a workstation: from a folder of images or arrays, an npz, an npy or a CSV.

    photos/cat/1.png  photos/dog/2.png   a folder of images (or .npy arrays), one folder a class: labelled
    photos/1.png      photos/2.png       the same without folders: no labels
    factory.npz                          x [n, *sample_shape], and y [n] or no labels
    probes.npy                           [n, *sample_shape], no labels
    patients.csv, patients.csv.gz        a head line, then a sample a line; one column may hold the class
    letters.txt, letters/                where tokens are words, a text or a folder of texts: labelled by what is next

How one image, array or table becomes samples is `fd_runtime.samples`, which devices read by too. Files and folders
whose names begin with a dot are no samples: tools leave them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fd_protocol.manifest import Task
from fd_runtime.models.model import I64
from fd_runtime.samples import (
    TEXT,
    UNREADABLE,
    DataError,
    check_samples,
    class_numbers,
    is_one_sample,
    read_array,
    read_one,
    read_table,
    read_text,
)

__all__ = ["DataError", "Samples", "read_samples", "texts_in"]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples [n, *sample_shape] as the task records them, and int64 labels [n], or None where there are none."""

    values: npt.NDArray[np.generic]
    labels: I64 | None = None

    def __len__(self) -> int:
        return len(self.values)


def read_samples(path: Path, task: Task, *, label: str = "y", with_labels: bool = True) -> Samples:
    """Return what lies at `path`, in the order of the file, or of the sorted names of a folder.

    Args:
        path: one of the forms above.
        task: what a sample is, and the classes.
        label: the CSV's column, or the npz's array, of the classes; samples need not have it.
        with_labels: whether labels are read where there are any; else they may be of any classes.

    Raises:
        DataError: it cannot be read, is no such file, or its samples are not the task's.
    """
    read = _read_folder if path.is_dir() else _reader_of(path)
    try:
        values, labels = read(path, task, label)
    except UNREADABLE as error:
        raise DataError(path, error) from error
    check_samples(path, values, task)
    if labels is None or not with_labels:
        return Samples(values)
    return Samples(values, class_numbers(path, labels, task, len(values)))


_Raw = tuple[npt.NDArray[np.generic], Sequence[Any] | None]


def _reader_of(path: Path) -> Any:
    readers = {".npz": _read_npz, ".npy": _read_npy, ".csv": _read_csv, ".gz": _read_csv, TEXT: _read_text}
    if path.suffix not in readers:
        raise DataError(path, "is neither a folder nor a file named .npz, .npy, .csv, .csv.gz or .txt")
    return readers[path.suffix]


def _read_npz(path: Path, _task: Task, label: str) -> _Raw:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["x"], arrays[label].ravel().tolist() if label in arrays else None


def _read_npy(path: Path, _task: Task, _label: str) -> _Raw:
    return read_array(path), None


def _read_csv(path: Path, task: Task, label: str) -> _Raw:
    table = read_table(path, task, label)
    return table.values, table.labels


def texts_in(folder: Path) -> list[Path]:
    """Return the texts in a folder and in folders in it, by name."""
    found = (path for path in folder.rglob(f"*{TEXT}") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _read_text(path: Path, task: Task, _label: str) -> _Raw:
    values, labels = read_text(path, task)
    return values, labels.tolist()


def _read_texts(path: Path, task: Task) -> _Raw:
    rows = [read_text(file, task) for file in texts_in(path)]
    if not rows:
        raise DataError(path, f"holds no {TEXT}")
    return np.concatenate([values for values, _ in rows]), np.concatenate([labels for _, labels in rows]).tolist()


def _read_folder(path: Path, task: Task, _label: str) -> _Raw:
    return _read_texts(path, task) if task.tokens else _read_recordings(path, task)


def _read_recordings(path: Path, task: Task) -> _Raw:
    files = sorted(file for file in path.rglob("*") if is_one_sample(file.relative_to(path)) and not file.is_dir())
    if not files:
        raise DataError(path, "holds no image and no .npy")
    values = np.stack([read_one(file, task) for file in files])
    if all(file.parent == path for file in files):
        return values, None
    return values, [file.relative_to(path).parts[0] for file in files]
