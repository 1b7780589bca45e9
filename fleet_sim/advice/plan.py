"""What `fleet-sim advise` reads: a fleet that is only planned, as TOML.

    probes = 1000
    class_counts = [[40, 0, 3], [0, 55, 1]]            # rows a device has of each class; or
    labels = "labels.csv"                              # columns device,label; or an npz of arrays devices, labels
    models = [{ trainable = 3610, whole = 81674 }]     # one an architecture; or
    bundles = ["bundles/cnn-m"]
    server_labels = [20, 20, 0]                        # labelled rows at the server, of each class
    link = { up_bytes_per_day = 200_000, rounds_per_day = 24 }

With bundles, `public_set` and `samples` (one file or folder a device) the probes are checked as well.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.terms import MAX_PROBES
from fd_runtime.config import load_toml
from fd_runtime.models.model import I64
from model_export.samples import DataError


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters of an architecture: those that devices train, and all."""

    trainable: int
    whole: int

    def __post_init__(self) -> None:
        if not 0 < self.trainable <= self.whole:
            raise InvalidValueError("a model trains at least 1 of its parameters and at most the whole")


@dataclass(frozen=True, slots=True)
class Link:
    """What a device's link bears; 0 bytes = nobody counts."""

    up_bytes_per_day: int = 0
    down_bytes_per_day: int = 0
    rounds_per_day: float = 1.0

    def __post_init__(self) -> None:
        if min(self.up_bytes_per_day, self.down_bytes_per_day) < 0 or self.rounds_per_day <= 0:
            raise InvalidValueError("bytes are not negative, rounds_per_day is above 0")

    @property
    def is_counted(self) -> bool:
        return self.up_bytes_per_day > 0 or self.down_bytes_per_day > 0

    @property
    def up_bytes(self) -> float:
        """Most bytes up a round, infinite where nobody counts."""
        return self.up_bytes_per_day / self.rounds_per_day or float("inf")

    @property
    def down_bytes(self) -> float:
        """Most bytes down a round, infinite where nobody counts."""
        return self.down_bytes_per_day / self.rounds_per_day or float("inf")


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A fleet on paper; see the module.

    Attributes:
        probes: how many there are; 0 = as many as in `public_set`.
        class_counts: rows of each class on each device.
        labels: a file of them instead.
        models: an entry an architecture.
        bundles: their folders instead.
        public_set: its folder.
        samples: private-like samples, a file or folder a device.
        server_labels: labelled rows at the server of each class; none = it has none.
        is_trusted: whether every device is believed to be honest.
        epsilon: of record-level differential privacy, where it is asked for.
        rounds: how many are planned.
        link: of a device.
    """

    probes: int = 0
    class_counts: tuple[tuple[int, ...], ...] = ()
    labels: Path | None = None
    models: tuple[ModelSize, ...] = ()
    bundles: tuple[Path, ...] = ()
    public_set: Path | None = None
    samples: tuple[Path, ...] = ()
    server_labels: tuple[int, ...] = ()
    is_trusted: bool = True
    epsilon: float | None = None
    rounds: int = 15
    link: Link = Link()

    def __post_init__(self) -> None:
        if bool(self.class_counts) == (self.labels is not None):
            raise InvalidValueError("say either class_counts or labels")
        if bool(self.models) == bool(self.bundles):
            raise InvalidValueError("say either models or bundles")
        if (self.probes > 0) == (self.public_set is not None) or self.probes > MAX_PROBES:
            raise InvalidValueError(f"say either probes, 1 to {MAX_PROBES}, or public_set")
        if self.samples and not (self.bundles and self.public_set):
            raise InvalidValueError("samples need bundles, which say what a sample is, and a public_set")
        if self.rounds < 1 or (self.epsilon is not None and self.epsilon <= 0):
            raise InvalidValueError("rounds are at least 1, epsilon is above 0")
        self._check_counts()

    def _check_counts(self) -> None:
        lengths = {len(row) for row in self.class_counts} | ({len(self.server_labels)} - {0})
        if len(lengths) > 1 or min(lengths, default=2) < 2:
            raise InvalidValueError("every device, and the server, has a count for each of 2 or more classes")
        if any(count < 0 for row in (*self.class_counts, self.server_labels) for count in row):
            raise InvalidValueError("a count is not negative")


def read_plan(path: Path) -> FleetPlan:
    """Return the plan in a TOML file.

    Raises:
        ConfigError: the file is wrong at a key.
    """
    return load_toml(path, FleetPlan)


def counts_of(plan: FleetPlan, classes: int = 0) -> I64:
    """Return rows per device and class, [devices, classes].

    Args:
        plan: that has counts or names a file of labels.
        classes: how many there are; 0 = as many as the plan shows.

    Raises:
        DataError: the file of labels cannot be read, or holds something else.
        InvalidValueError: the plan has other classes, or nobody holds a row.
    """
    least = max(classes, len(plan.server_labels))
    counts = np.array(plan.class_counts, np.int64) if plan.labels is None else _read_counts(plan.labels, least)
    if counts.shape[1] < 2 or (least and counts.shape[1] != least):
        raise InvalidValueError(f"the devices' rows have {counts.shape[1]} classes, expected {least or 'at least 2'}")
    if not counts.any():
        raise InvalidValueError("no device holds a row")
    return counts


def _read_counts(path: Path, classes: int) -> I64:
    try:
        devices, labels = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
        numbers = np.array(labels, np.int64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, csv.Error) as error:
        raise DataError(path, error) from error
    if not len(numbers) or len(devices) != len(numbers) or numbers.min() < 0:
        raise DataError(path, "every row names its device and a class, a number from 0")
    names, places = np.unique(np.array(devices), return_inverse=True)
    counts = np.zeros((len(names), max(classes, int(numbers.max()) + 1)), np.int64)
    np.add.at(counts, (places.reshape(-1), numbers), 1)
    return counts


def _read_npz(path: Path) -> tuple[list[object], list[object]]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["devices"].ravel().tolist(), arrays["labels"].ravel().tolist()


def _read_csv(path: Path) -> tuple[list[object], list[object]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["device"] for row in rows], [row["label"] for row in rows]
