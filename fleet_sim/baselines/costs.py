"""What equal accuracy costs: rounds, and bytes of a device in both directions, until a method is as good as asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from fleet_sim.baselines.standings import Standing
from fleet_sim.metrics.targets import bytes_to_target, rounds_to_target

SHARE_OF_BEST = 0.95
"""Of what the best method ends at: where costs are asked for, unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Means over the seeds that get there; NaN: none does.

    Attributes:
        reached: how many seeds.
        rounds: until then.
        up_bytes, down_bytes: of a device, until then.
    """

    reached: int
    rounds: float
    up_bytes: float
    down_bytes: float

    @property
    def bytes(self) -> float:
        return self.up_bytes + self.down_bytes


def cost_until(seeds: Sequence[Standing], target: float) -> Cost:
    """Return what an accuracy of `target`, in 0..1, costs a method; one standing a seed."""
    found = [
        (number, *(bytes_to_target(standing.curve, standing.totals, target) or (0.0, 0.0)))
        for standing in seeds
        if (number := rounds_to_target(standing.curve, target)) is not None
    ]
    if not found:
        return Cost(0, math.nan, math.nan, math.nan)
    return Cost(len(found), *(mean(each) for each in zip(*found, strict=True)))


def has_rounds(seeds: Sequence[Standing]) -> bool:
    """Whether they are ends of curves; two rounds are the least that make one."""
    return any(len(standing.curve) > 1 for standing in seeds)


def best_end(ends: Mapping[str, Sequence[Standing]]) -> float:
    """Return the mean accuracy, in 0..1, that the best of those with rounds ends at; NaN: there are none.

    Args:
        ends: standings of each method, one a seed; one that diverged is nobody's best.
    """
    means = [mean(s.final for s in seeds) for seeds in ends.values() if has_rounds(seeds)]
    return max((each for each in means if not math.isnan(each)), default=math.nan)
