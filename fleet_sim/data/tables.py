"""Data sets that are tables: patients of four hospitals, and two of people who do or do not pay.

A missing value is NaN. Columns keep their units: the tabular families standardise what they read.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, I64
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.published import AbsentDataError, Published, Shelf
from model_export.samples import DataError

T = TypeVar("T")

_UCI_HEART = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease"
_HOSPITALS = {
    "cleveland": "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
    "hungarian": "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
    "switzerland": "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
    "va": "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
}
_CHOLESTEROL = 4
_UCI_TAIWAN = "https://archive.ics.uci.edu/dataset/350/default+of+credit+card+clients"
_ULB = "https://www.kaggle.com/datasets/mlg-ulb/creditcardfraud"
_DEFAULTS = ("Default", "default.payment.next.month", "default payment next month")
"""How copies of the Taiwan table call its label."""


def heart_disease(shelf: Shelf) -> Dataset:
    """920 patients; which of the 13 columns are missing differs from hospital to hospital.

    From an npz (X, y, hospital, hospitals), a folder with UCI's four `processed.*.data`, or the download. Sick is who
    has a grade above 0. A cholesterol of 0 counts as missing: nobody alive has it, and all Swiss patients do.
    """
    if shelf.file is None:
        tables = [_hospital(shelf, hospital) for hospital in _HOSPITALS]
        values, grades = np.concatenate([table[:, :-1] for table in tables]), np.concatenate([t[:, -1] for t in tables])
        groups, names = np.repeat(np.arange(len(tables)), [len(table) for table in tables]), tuple(_HOSPITALS)
    else:
        values, grades, groups, names = _reading(shelf.file, _heart_of_npz)
    cholesterol = values[:, _CHOLESTEROL]
    values[:, _CHOLESTEROL] = np.where(cholesterol == 0, np.nan, cholesterol)
    return Dataset(
        name="heart-disease",
        task=Task(("healthy", "sick"), values.shape[1:], "float32"),
        samples=values,
        labels=(grades > 0).astype(np.int64),
        groups=groups.astype(np.int64),
        group_names=names,
        source="Janosi et al. 1988, UCI heart disease",
        licence="CC-BY-4.0",
    )


def taiwan_default(shelf: Shelf) -> Dataset:
    """30000 card holders, 23 columns; 22 % do not pay next month. From a CSV of UCI's sheet."""
    if shelf.file is None:
        raise AbsentDataError(f"taiwan-default: name a CSV of the sheet that you downloaded from {_UCI_TAIWAN}")
    table = _reading(shelf.file, _read_csv)
    return Dataset(
        name="taiwan-default",
        task=Task(("pays", "defaults"), (23,), "float32"),
        samples=table.without("ID", *_DEFAULTS),
        labels=table.label(*_DEFAULTS),
        source="Yeh and Lien 2009, UCI default of credit card clients",
        licence="CC-BY-4.0",
    )


def card_fraud(shelf: Shelf) -> Dataset:
    """Card transactions of two days, 30 columns, few of them fraud. From creditcard.csv, or an npz (X, y).

    In the full set 0.17 % are fraud. A share that was drawn by class must be re-weighted before rates are read off it.
    """
    if shelf.file is None:
        raise AbsentDataError(f"card-fraud: name the creditcard.csv that you downloaded from {_ULB}")
    if shelf.file.suffix == ".npz":
        values, labels = _reading(shelf.file, _fraud_of_npz)
    else:
        table = _reading(shelf.file, _read_csv)
        values, labels = table.without("Class"), table.label("Class")
    return Dataset(
        name="card-fraud",
        task=Task(("legitimate", "fraud"), (30,), "float32"),
        samples=values,
        labels=labels,
        source="Dal Pozzolo et al. 2015, Worldline and ULB",
        licence="ODbL-1.0 / DbCL-1.0",
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A CSV of numbers: `head` names its columns, `values` [rows, columns]."""

    path: Path
    head: tuple[str, ...]
    values: F32

    def without(self, *names: str) -> F32:
        return np.ascontiguousarray(self.values[:, [name not in names for name in self.head]])

    def label(self, *names: str) -> I64:
        """Return the first column that has one of the names, as class numbers."""
        place = next((place for place, name in enumerate(self.head) if name in names), None)
        if place is None:
            raise DataError(self.path, f"has no column {' or '.join(map(repr, names))}")
        return self.values[:, place].astype(np.int64)


def _read_csv(path: Path) -> _Table:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        head = tuple(next(csv.reader(file)))
        values = np.loadtxt(file, np.float32, delimiter=",", quotechar='"', ndmin=2)
    if values.shape[1] != len(head):
        raise InvalidValueError(f"{len(head)} columns have names, {values.shape[1]} have values")
    return _Table(path, head, values)


def _hospital(shelf: Shelf, name: str) -> F32:
    """UCI's table of a hospital: 13 columns and the grade, `?` where a value is missing."""
    file = f"processed.{name}.data"
    text = shelf.content(Published(file, f"{_UCI_HEART}/{file}", f"sha256:{_HOSPITALS[name]}")).decode("ascii")
    return np.loadtxt(io.StringIO(text.replace("?", "nan")), np.float32, delimiter=",", ndmin=2)


def _heart_of_npz(path: Path) -> tuple[F32, F32, I64, tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as arrays:
        hospitals = tuple(map(str, arrays["hospitals"]))
        return arrays["X"].astype(np.float32), arrays["y"].astype(np.float32), arrays["hospital"], hospitals


def _fraud_of_npz(path: Path) -> tuple[F32, I64]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["X"].astype(np.float32), arrays["y"].astype(np.int64)


def _reading(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (OSError, ValueError, KeyError, EOFError, StopIteration, zipfile.BadZipFile) as error:
        raise DataError(path, error) from error
