"""Guaranteeing a minimum of rows after a draw that does not."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from fd_runtime.models.model import I64
from fleet_sim.partitions.partition import check_enough


def levelled(parts: Sequence[I64], minimum: int, rng: np.random.Generator) -> tuple[I64, ...]:
    """Return the parts, ascending, after whoever has fewer than `minimum` rows took random ones of the then richest.

    Drawing again until all have enough, the usual way, never ends with many devices and a strong skew.

    Raises:
        InvalidValueError: there are not so many rows.
    """
    check_enough(sum(map(len, parts)), len(parts), minimum)
    needy = [place for place, part in enumerate(parts) if len(part) < minimum]
    if not needy:
        return tuple(np.sort(part) for part in parts)
    piles = [rng.permutation(part).tolist() for part in parts]
    richest = [(-len(pile), place) for place, pile in enumerate(piles) if len(pile) > minimum]
    heapq.heapify(richest)
    for place in needy:
        while len(piles[place]) < minimum:
            size, donor = richest[0]  # has more than minimum: the mean is minimum or more, and someone is below
            piles[place].append(piles[donor].pop())
            heapq.heapreplace(richest, (size + 1, donor))
    return tuple(np.sort(np.array(pile, np.int64)) for pile in piles)
