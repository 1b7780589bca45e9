"""A user's own data: an npz, a CSV or a folder, in the forms that `model-export` reads for the same task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fd_protocol.manifest import Task
from fleet_sim.data.dataset import Dataset, numbered
from model_export.samples import DataError, read_samples


def own_dataset(path: Path, task: Task, *, label: str = "y", group: str = "group", test: str = "test") -> Dataset:
    """Return the labelled samples that lie at `path`.

    Args:
        path: see `model_export.samples`.
        task: what a sample is, and the classes.
        label: the CSV's column, or the npz's array, of the classes.
        group: the npz's array that says whose a sample is, by name or number; it need not be there.
        test: the npz's array that is true of the samples to test with: of later days, say; it need not be there. They
            come last.

    Raises:
        DataError: it cannot be read, or is not labelled.
    """
    samples = read_samples(path, task, label=label)
    if samples.labels is None:
        raise DataError(path, f"has no labels: no {label!r}, and no folder for each class")
    groups, names = numbered(groups) if (groups := _array(path, group, len(samples))) is not None else (None, ())
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
