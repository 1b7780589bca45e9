"""A user's own data: an npz, a CSV, a text or a folder, in the forms that `model-export` reads for the same task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fd_protocol.manifest import Task
from fd_runtime.model import I64
from fd_runtime.samples import read_text
from fleet_sim.data.dataset import Dataset, numbered
from model_export.samples import DataError, read_samples, texts_in


def own_dataset(path: Path, task: Task, *, label: str = "y", group: str = "group") -> Dataset:
    """Return the labelled samples that lie at `path`.

    Args:
        path: see `model_export.samples`.
        task: what a sample is, and the classes.
        label: the CSV's column, or the npz's array, of the classes.
        group: the npz's array that says whose a sample is, by name or number; it need not be there. In a folder of
            texts each is somebody's, called as the file is.

    Raises:
        DataError: it cannot be read, or is not labelled.
    """
    samples = read_samples(path, task, label=label)
    if samples.labels is None:
        raise DataError(path, f"has no labels: no {label!r}, and no folder for each class")
    groups, names = _of_texts(path, task) if task.tokens and path.is_dir() else _groups(path, group)
    if groups is not None and len(groups) != len(samples):
        raise DataError(path, f"{len(samples)} samples have {len(groups)} groups")
    return Dataset(
        name=path.name,
        task=task,
        samples=samples.values,
        labels=samples.labels,
        groups=groups,
        group_names=names,
        source=str(path),
        licence="the user's own",
    )


def _of_texts(folder: Path, task: Task) -> tuple[I64, tuple[str, ...]]:
    files = texts_in(folder)
    names = tuple(str(file.relative_to(folder).with_suffix("")) for file in files)
    return np.repeat(np.arange(len(files)), [len(read_text(file, task)[1]) for file in files]), names


def _groups(path: Path, name: str) -> tuple[I64 | None, tuple[str, ...]]:
    if path.suffix != ".npz":
        return None, ()
    with np.load(path, allow_pickle=False) as arrays:
        return numbered(arrays[name].ravel()) if name in arrays else (None, ())
