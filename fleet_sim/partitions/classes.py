"""Skew of classes by their number: a device knows a few, and of the others nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64
from fleet_sim.partitions.partition import Census


@dataclass(frozen=True, slots=True)
class Classes:
    """Every device holds exactly `per_device` classes; "#C=k" of Li et al. 2022 (NIID-Bench, arXiv:2102.02079).

    Classes are dealt like cards, so that each has as many holders as any other, or one more or less; the holders of a
    class share its rows evenly. Every row is handed out.
    """

    per_device: int = 2

    def __post_init__(self) -> None:
        if self.per_device < 1:
            raise InvalidValueError("per_device is 1 class or more")

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        rows = census.rows_by_class(rng)
        self._check(len(rows), devices)
        hands = _deal(len(rows), devices, self.per_device, rng)
        pieces: list[list[I64]] = [[] for _ in range(devices)]
        for place, (label, members) in enumerate(rows.items()):
            holders = np.flatnonzero((hands == place).any(axis=1))
            if len(members) < len(holders):
                problem = f"class {label} has {len(members)} rows for {len(holders)} devices"
                raise InvalidValueError(f"{problem}: lower devices or per_device")
            for holder, piece in zip(holders, np.array_split(members, len(holders)), strict=True):
                pieces[holder].append(piece)
        return tuple(np.sort(np.concatenate(piece)) for piece in pieces)

    def _check(self, classes: int, devices: int) -> None:
        if self.per_device > classes:
            raise InvalidValueError(f"per_device is {self.per_device}, but there are {classes} classes")
        if devices * self.per_device < classes:
            raise InvalidValueError(
                f"{devices} devices of {self.per_device} classes leave some of {classes} to nobody: "
                "raise devices or per_device"
            )


def _deal(classes: int, devices: int, per_device: int, rng: np.random.Generator) -> I64:
    """Return each device's hand [devices, per_device]: the classes with the fewest holders so far, ties at random."""
    held = np.zeros(classes, np.int64)
    hands = np.empty((devices, per_device), np.int64)
    for hand in hands:
        hand[:] = np.lexsort((rng.random(classes), held))[:per_device]
        held[hand] += 1
    return hands
