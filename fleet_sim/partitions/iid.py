"""Everyone draws from the same hat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.partition import Census, check_enough


@dataclass(frozen=True, slots=True)
class Iid:
    """Rows at random, sizes equal or one apart. Every row is handed out; every device gets `minimum` or more."""

    minimum: int = 1

    def __post_init__(self) -> None:
        if self.minimum < 0:
            raise InvalidValueError("minimum is 0 rows or more")

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        check_enough(len(census), devices, self.minimum)
        return tuple(np.sort(part) for part in np.array_split(rng.permutation(len(census)), devices))
