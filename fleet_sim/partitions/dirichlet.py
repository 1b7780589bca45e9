"""Skew of classes whose strength is one number (Hsu et al. 2019, arXiv:1909.06335; per class as in Yurochkin 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.levelling import levelled
from fleet_sim.partitions.partition import Census


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Each class is spread over the devices by its own draw of Dirichlet(alpha, ..., alpha). Every row is handed out.

    Attributes:
        alpha: small = skewed, in mix and in size; 100 is nearly even.
        minimum: rows that every device gets. With 0 a device may stay empty: it has nothing to teach and learns from
            the others alone. Above, the poorest take from the richest (see `levelled`).
    """

    alpha: float = 0.1
    minimum: int = 0

    def __post_init__(self) -> None:
        if self.alpha <= 0 or self.minimum < 0:
            raise InvalidValueError("alpha is above 0, minimum is 0 rows or more")

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        taken: list[list[I64]] = [[] for _ in range(devices)]
        for label in np.unique(census.labels):
            rows = rng.permutation(np.flatnonzero(census.labels == label))
            ends = (np.cumsum(rng.dirichlet(np.full(devices, self.alpha))) * len(rows)).astype(np.int64)
            for part, piece in zip(taken, np.split(rows, ends[:-1]), strict=True):
                part.append(piece)
        return levelled([np.concatenate(pieces) for pieces in taken], self.minimum, rng)
