"""`fleet-sim data`: which data sets there are, which of them are here, and what one of them holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fd_protocol.errors import FedistillError
from fd_runtime.pages import Section
from fleet_sim.data import DATASETS, Dataset
from fleet_sim.data.terms import DataTerms


def listed() -> Section:
    """Return all data sets; those that are here are loaded, and nothing is downloaded."""
    rows = tuple((name, *_state(name), loader.about) for name, loader in DATASETS.items())
    note = "Get one, or look at it: fleet-sim data NAME [--path PATH]. One's own data: docs/simulation.md."
    return Section("Data sets", ("name", "here", "rows", "licence", "what it is"), rows, note)


def described(name: str, path: Path | None) -> Section:
    """Return what a data set holds; it is downloaded where it can be and is not here.

    Raises:
        InvalidValueError: there is none of this name.
        AbsentDataError, ChecksumError, DataError: see `Loader.load`.
    """
    data = DataTerms(name, path).load()
    counts = np.bincount(data.labels, minlength=len(data.task.classes))
    shown = ", ".join(f"{label} {count:,}" for label, count in zip(data.task.classes, counts, strict=True))
    rows = (
        ("rows", f"{len(data):,}, of them {data.published_test:,} published as test"),
        ("a sample", f"{data.task.sample_dtype} {list(data.task.sample_shape)}"),
        ("classes", shown),
        ("users, sites or speakers", f"{len(data.group_names)}"),
        ("source", data.source),
        ("licence", data.licence),
    )
    return Section(name, ("", "what it holds"), rows)


def _state(name: str) -> tuple[str, str, str]:
    """Return whether it is here, its rows and its licence."""
    try:
        data: Dataset = DATASETS[name].load(may_download=False)
    except FedistillError:
        return "no", "", ""
    return "yes", f"{len(data):,}", data.licence
