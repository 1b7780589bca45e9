"""In which space are windows of one activity neighbours? Asked of other people's windows, in four spaces.

    python space.py --data A_DeviceMotion_data.zip [--write]

A device says where it is competent by where its rows lie. That helps as far as a window's neighbours mean the same, be
they of another person: for each window of a person, the nearest of all others', in the 20 widest axes of 600 probes.
`pca` is the space that a public set has (`fd_protocol.public_set.SpaceKind`); the others are what it could have.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_runtime.models.model import F32
from fleet_sim.data import DATASETS, Dataset
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.neighbours import neighbour_agreement, of_each
from fleet_sim.tables import publish, table_of
from model_export.public_set import DIMENSIONS, principal_space

PAGE = Path(__file__).parent / "README.md"
PROBES, OF_EACH, SEEDS = 600, 100, 5


def standardised(windows: F32) -> F32:
    return (windows - windows.mean(axis=(0, 2), keepdims=True)) / windows.std(axis=(0, 2), keepdims=True)


def spectra(windows: F32) -> F32:
    """Return the amplitude of each frequency, 0 first: of whichever moment a window begins at, the same."""
    return np.abs(np.fft.rfft(windows, axis=2, norm="ortho")).astype(np.float32)


SPACES: Mapping[str, Callable[[F32], F32]] = {
    "windows (`pca`, what is built)": lambda windows: windows,
    "windows, each channel standardised": standardised,
    "spectra": spectra,
    "spectra, each channel standardised": lambda windows: spectra(standardised(windows)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="space.py")
    parser.add_argument("--data", type=Path, required=True, help="MotionSense, in a form that fleet-sim knows")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    dataset = DATASETS["motion-sense"].load(asked.data)
    rows = [[name, *agreements(dataset, vectors)] for name, vectors in SPACES.items()]
    classes = dataset.task.classes
    text = table_of(["nearest window of another person means the same, %", "all", *classes], rows)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish("table: spaces", "python examples/iot-sensors/space.py --data PATH --write", text, PAGE)


def agreements(dataset: Dataset, vectors: Callable[[F32], F32]) -> list[str]:
    """Return the share of windows whose nearest of another person has their activity: of all, and of each activity."""
    shares = np.stack([shares_of(dataset, vectors, np.random.default_rng(seed)) for seed in range(SEEDS)])
    return [estimate(column.tolist()).in_percent() for column in shares.T]


def shares_of(dataset: Dataset, vectors: Callable[[F32], F32], rng: np.random.Generator) -> F32:
    """Return the shares of one draw, float32 [1 + classes]."""
    rows = of_each(dataset.groups, OF_EACH, rng)
    groups, labels = dataset.groups[rows], dataset.labels[rows]
    flat = vectors(dataset.samples[rows]).reshape(len(rows), -1)
    points = flat @ principal_space(rng.permutation(flat)[:PROBES], DIMENSIONS).components.T
    return neighbour_agreement(points, labels, groups)


if __name__ == "__main__":
    main()
