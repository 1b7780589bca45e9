"""Skew of sizes alone: all devices draw from the same hat, some far more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.levelling import levelled
from fleet_sim.partitions.partition import Census

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Rows at random, sizes by a law. Every row is handed out.

    Attributes:
        law: `power`: the k-th largest device has a share like k to the power of -strength (Zipf);
            `dirichlet`: shares are a draw of Dirichlet(strength, ..., strength) (Li et al. 2022).
        strength: of a power law large = skewed, of a Dirichlet small = skewed.
        minimum: rows that every device gets; the poorest take from the richest (see `levelled`).
    """

    law: Literal["power", "dirichlet"] = "power"
    strength: float = 1.0
    minimum: int = 1

    def __post_init__(self) -> None:
        if self.strength <= 0 or self.minimum < 0:
            raise InvalidValueError("strength is above 0, minimum is 0 rows or more")

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        sizes = apportioned(self._shares(devices, rng), len(census))
        parts = np.split(rng.permutation(len(census)), np.cumsum(sizes)[:-1])
        return levelled(parts, self.minimum, rng)

    def _shares(self, devices: int, rng: np.random.Generator) -> F64:
        if self.law == "dirichlet":
            return rng.dirichlet(np.full(devices, self.strength))
        weights = rng.permutation(np.arange(1.0, devices + 1) ** -self.strength)
        shares: F64 = weights / weights.sum()
        return shares


def apportioned(shares: F64, total: int) -> I64:
    """Return whole numbers near shares x total that sum to total: rounded down, the largest rests first rounded up."""
    exact = shares * total
    sizes = np.floor(exact).astype(np.int64)
    missing = total - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:missing]] += 1
    return sizes
