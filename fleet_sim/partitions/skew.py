"""How uneven a partition is, in four numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Skew:
    """Of the devices that hold rows, a mean in which each counts once.

    Attributes:
        total_variation: of a device's class mix from that of all: half the sum of differences; 0 = alike, 1 = apart.
        effective_classes: on a device: exp of the entropy of its mix (Hill number of order 1), from 1 to all.
        effective_devices: (sum of sizes)^2 / sum of squared sizes (Kish): as many equal devices would be as uneven.
        empty: devices without a row.
    """

    total_variation: float
    effective_classes: float
    effective_devices: float
    empty: int


def measure_skew(labels: I64, parts: Sequence[I64], classes: int) -> Skew:
    """Return how uneven it is that device i holds rows `parts[i]`, whose classes are `labels[parts[i]]`.

    Raises:
        InvalidValueError: nobody holds anything.
    """
    counts = class_counts(labels, parts, classes)
    sizes = counts.sum(axis=1)
    if not sizes.any():
        raise InvalidValueError("no device holds a row")
    mixes = counts[sizes > 0] / sizes[sizes > 0, None]
    overall = counts.sum(axis=0) / counts.sum()
    return Skew(
        total_variation=float(np.mean(np.abs(mixes - overall).sum(axis=1) / 2)),
        effective_classes=float(np.mean(np.exp(_entropy(mixes)))),
        effective_devices=float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()),
        empty=int((sizes == 0).sum()),
    )


def class_counts(labels: I64, parts: Sequence[I64], classes: int) -> I64:
    """Return rows per device and class [devices, classes]."""
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts]).astype(np.int64)


def _entropy(mixes: F64) -> F64:
    """In nats, of each row; 0 log 0 = 0."""
    logs = np.log(mixes, where=mixes > 0, out=np.zeros_like(mixes))
    entropy: F64 = -(mixes * logs).sum(axis=1)
    return entropy
