"""A user's own data: an npz, a CSV, a text or a folder, in the forms that `model-export` reads for the same task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fd_protocol.manifest import Task
from fd_runtime.models.model import I64
from fd_runtime.samples import read_text
from fleet_sim.data.dataset import Dataset, numbered
from model_export.samples import DataError, read_samples, texts_in


def own_dataset(path: Path, task: Task, *, label: str = "y", group: str = "group", test: str = "test") -> Dataset:
    """Return the labelled samples that lie at `path`.

    Args:
        path: see `model_export.samples`.
        task: what a sample is, and the classes.
        label: the CSV's column, or the npz's array, of the classes.
        group: the npz's array that says whose a sample is, by name or number; it need not be there. In a folder of
            texts each is somebody's, called as the file is.
        test: the npz's array that is true of the samples to test with: of later days, say; it need not be there. They
            come last.

    Raises:
        DataError: it cannot be read, or is not labelled.
    """
    samples = read_samples(path, task, label=label)
    if samples.labels is None:
        raise DataError(path, f"has no labels: no {label!r}, and no folder for each class")
    groups, names = _groups(path, task, group, len(samples))
    dataset = Dataset(
        name=path.name,
        task=task,
        samples=samples.values,
        labels=samples.labels,
        groups=groups,
        group_names=names,
        source=str(path),
        licence="the user's own",
    )
    is_test = _array(path, test, len(samples))
    if is_test is None:
        return dataset
    is_test = is_test.astype(np.bool_)
    return replace(dataset.take(np.argsort(is_test, kind="stable")), published_test=int(is_test.sum()))


def _groups(path: Path, task: Task, name: str, samples: int) -> tuple[I64 | None, tuple[str, ...]]:
    """Return whose each sample is, and the names of those people or sites; None: nobody said."""
    if task.tokens and path.is_dir():
        files = texts_in(path)
        counts = [len(read_text(file, task)[1]) for file in files]
        return np.repeat(np.arange(len(files)), counts), tuple(str(_name_of(file, path)) for file in files)
    found = _array(path, name, samples)
    return (None, ()) if found is None else numbered(found)


def _name_of(file: Path, folder: Path) -> Path:
    return file.relative_to(folder).with_suffix("")


def _array(path: Path, name: str, samples: int) -> Any:
    """Return what an npz says of each sample beside its class; None: nothing."""
    if path.suffix != ".npz":
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if name not in arrays:
            return None
        found = arrays[name].ravel()
    if len(found) != samples:
        raise DataError(path, f"{samples} samples have {len(found)} values of {name!r}")
    return found
