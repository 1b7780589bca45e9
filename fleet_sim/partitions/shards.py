"""The split of the first FedAvg experiments (McMahan et al. 2017, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.partition import Census, check_enough


@dataclass(frozen=True, slots=True)
class Shards:
    """Rows sorted by class, cut into `per_device` equal shards for every device, and dealt. Every row is handed out.

    A shard that lies across a border has rows of two classes, so a device may know more than `per_device` of them.
    """

    per_device: int = 2

    def __post_init__(self) -> None:
        if self.per_device < 1:
            raise InvalidValueError("per_device is 1 shard or more")

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        count = devices * self.per_device
        check_enough(len(census), devices, self.per_device)
        shards = np.array_split(np.concatenate(list(census.rows_by_class(rng).values())), count)
        hands = rng.permutation(count).reshape(devices, self.per_device)
        return tuple(np.sort(np.concatenate([shards[place] for place in hand])) for hand in hands)
