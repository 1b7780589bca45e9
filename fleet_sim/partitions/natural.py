"""The split that the data came with: a device is a user, a site, a speaker."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_agent.private.reservoir import BalancedReservoir
from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.partition import Census


@dataclass(frozen=True, slots=True)
class Natural:
    """A device holds all rows of a group, and no others'.

    Where there are more groups than devices, chance says which take part, and nobody holds the rows of the rest: they
    are the unseen users.

    Attributes:
        minimum: rows that a group needs.
        small: what becomes of a group with fewer: nobody holds its rows, or small ones share a device.
        most: rows that a device holds, of those that are its own; 0 = all of them.
        balanced: which rows these are: what the class-balanced reservoir of an agent's private store keeps of them, so
            that of a rare class all stay; else they are drawn.
    """

    minimum: int = 1
    small: Literal["drop", "merge"] = "drop"
    most: int = 0
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.minimum < 1:
            raise InvalidValueError("minimum is 1 row or more")
        if self.most and self.most < self.minimum:
            raise InvalidValueError("most is no less than minimum; 0 = all rows")
        if self.balanced and not self.most:
            raise InvalidValueError("balanced says which rows stay where `most` says how many")

    def holders(self, census: Census) -> list[I64]:
        """Return the rows of all devices that there can be.

        Raises:
            InvalidValueError: nobody said whose the rows are.
        """
        if census.groups is None:
            raise InvalidValueError("the data set names no users, sites or speakers: choose another partition")
        parts = [np.flatnonzero(census.groups == group) for group in np.unique(census.groups)]
        large = [part for part in parts if len(part) >= self.minimum]
        if self.small == "drop":
            return large
        return large + self._merged([part for part in parts if len(part) < self.minimum])

    def _merged(self, small: list[I64]) -> list[I64]:
        """Groups share a device in the order of the data; the last few may not suffice, and then nobody holds them."""
        merged: list[I64] = []
        pile: list[I64] = []
        for part in small:
            pile.append(part)
            if sum(map(len, pile)) >= self.minimum:
                merged.append(np.sort(np.concatenate(pile)))
                pile = []
        return merged

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        parts = self.holders(census)
        if len(parts) < devices:
            raise InvalidValueError(
                f"{len(parts)} groups have {self.minimum} rows or more: lower devices to that, or minimum"
            )
        chosen = [parts[place] for place in np.sort(rng.permutation(len(parts))[:devices])]
        if not self.most:
            return tuple(chosen)
        if not self.balanced:
            return tuple(np.sort(rng.permutation(part)[: self.most]) for part in chosen)
        return tuple(part[_stay(census.labels[part], self.most, rng)] for part in chosen)


def _stay(labels: I64, capacity: int, rng: np.random.Generator) -> I64:
    """Return the places of a stream of rows, of which each has its class in `labels`, that a private store keeps."""
    reservoir = BalancedReservoir(capacity, random.Random(int(rng.integers(1 << 62))))  # noqa: S311 - no secret
    for place, label in enumerate(labels.tolist()):
        if (verdict := reservoir.judge(label)).is_kept:
            reservoir.keep(place, label, verdict)
    return np.array([place for place in range(len(labels)) if place in reservoir], np.int64)
