"""What a sample is to a model, and where it lies in the one space in which everyone measures competence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_protocol.public_set import SpaceKind
from fd_runtime.models.model import F32, Inputs


def preprocessed(samples: npt.NDArray[np.generic], task: Task) -> Inputs:
    """Return what a model reads, of the same shape: float32 samples * scale + offset, or int32 tokens as they are."""
    if task.vocabulary is not None:
        return np.asarray(samples, np.int32)
    rule = task.preprocessing
    scaled = samples.astype(np.float32)  # a copy, changed in place: of one small sample each new array costs a layer
    scaled *= np.float32(rule.scale)
    if rule.offset != 0.0:
        scaled += np.float32(rule.offset)
    return scaled


def vectors(inputs: npt.NDArray[np.generic], kind: SpaceKind, size: int) -> F32:
    """Return what the axes of a space are made from and applied to: float32 [n, size], NaN where a value is missing.

    Args:
        inputs: preprocessed samples [n, ...].
        kind: which vector a sample has.
        size: numbers of a vector: elements of a sample, or tokens of the vocabulary.
    """
    flat = inputs.reshape(len(inputs), -1 if kind is SpaceKind.PCA_OF_TOKENS else size)
    if kind is SpaceKind.PCA:
        return np.asarray(flat, np.float32)
    places = flat.astype(np.int64) + size * np.arange(len(flat))[:, None]
    counts = np.bincount(places.ravel(), minlength=size * len(flat)).reshape(len(flat), size)
    return np.sqrt(counts / max(1, flat.shape[1]), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Space:
    """Principal axes of the probes.

    Attributes:
        mean: float32 [D].
        components: float32 [dimensions, D], orthonormal rows, the widest axis first.
        unit: median distance from a probe to its nearest fellow; distances are told in it.
        kind: which vector of D numbers a sample has.
    """

    mean: F32
    components: F32
    unit: float
    kind: SpaceKind = SpaceKind.PCA

    def __post_init__(self) -> None:
        if self.components.ndim != 2 or self.mean.shape != self.components.shape[1:] or self.unit <= 0:
            raise InvalidValueError(f"no space: mean {self.mean.shape}, components {self.components.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.components).all() and np.isfinite(self.unit)):
            raise InvalidValueError("no space: mean, components and unit must be finite")

    def locate(self, inputs: npt.NDArray[np.generic]) -> F32:
        """Return where preprocessed samples [n, ...] lie, in units: float32 [n, dimensions]."""
        centred = vectors(inputs, self.kind, self.mean.size) - self.mean
        centred[np.isnan(centred)] = 0.0
        return np.asarray(centred @ self.components.T / self.unit, np.float32)
