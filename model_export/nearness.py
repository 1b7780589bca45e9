"""How two sets of points lie to each other: probes and private samples, in the units of a public set's space.

A distance in units alone is blind where the unit is wide: white noise lies "near" every picture. So the same is asked
from the other side, in the spacing of the private samples (isolation), which no choice of probes can stretch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.competence import EDGES
from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import F32, I64

F64 = npt.NDArray[np.float64]

MIN_SAMPLES = 10
_TESTED, _NEIGHBOURS, _PERMUTATIONS = 500, 5, 999


@dataclass(frozen=True, slots=True)
class Nearness:
    """Medians are in units.

    Attributes:
        distance: median, from a private sample to the nearest probe; 1 = as near as probes are to each other.
        beyond: share of private samples farther than each of `fd_protocol.competence.EDGES`.
        isolation: median distance from a private sample to the nearest probe, over that to its nearest fellow, among
            equally many of both; 1 = neither is nearer.
        reach: median, from a probe to the nearest private sample.
        fair_reach: the same to the nearest of as many other probes: what `reach` is where both sets are drawn alike.
        same_set: share of the five nearest neighbours that are of a point's own set, among equally many of both.
        p_value: of so high a share by chance (Schilling 1986; Henze 1988; 999 permutations). A different mix of classes
            makes it small as well.
    """

    distance: float
    beyond: tuple[float, ...]
    isolation: float
    reach: float
    fair_reach: float
    same_set: float
    p_value: float


def measure_nearness(probes: F32, rows: F32, rng: np.random.Generator) -> Nearness:
    """Return how `probes` [n, d] and private samples `rows` [m, d] lie to each other.

    Raises:
        InvalidValueError: there are fewer than 10 of either.
    """
    size = min(len(probes), len(rows), _TESTED)
    if size < MIN_SAMPLES:
        raise InvalidValueError(f"{len(rows)} samples and {len(probes)} probes: a check needs {MIN_SAMPLES} of either")
    distances = nearest_distances(rows, probes)
    few_rows, few_probes = rng.permutation(rows)[:size], rng.permutation(probes)[:size]
    same_set, p_value = _same_set_test(few_probes, few_rows, rng)
    return Nearness(
        distance=float(np.median(distances)),
        beyond=tuple(float((distances >= edge).mean()) for edge in EDGES),
        isolation=_ratio(
            float(np.median(nearest_distances(few_rows, few_probes[1:]))),
            float(np.median(nearest_distances(few_rows, few_rows, own=np.arange(size)))),
        ),
        reach=float(np.median(nearest_distances(probes, rows))),
        fair_reach=_fair_reach(probes, len(rows), rng),
        same_set=same_set,
        p_value=p_value,
    )


def nearest_distances(points: F32, targets: F32, *, own: I64 | None = None) -> F64:
    """Return the distance of each of `points` [n, d] to the nearest of `targets`.

    Args:
        points: who asks.
        targets: who is near.
        own: place of each point among the targets, which does not count; -1 = it is none of them.
    """
    nearest = np.empty(len(points))
    for index, point in enumerate(points):  # row by row: the full table of 10^5 probes would not fit
        squares = np.square(targets - point).sum(axis=1)
        if own is not None and own[index] >= 0:
            squares[own[index]] = np.inf
        nearest[index] = squares.min()
    return np.sqrt(nearest)


def farthest_first(points: F32) -> tuple[I64, F64]:
    """Return an order of `points` in which each is the farthest from all before it, and how far that is.

    The first is the one nearest to the mean, infinitely far (Gonzalez 1985).
    """
    order, radii = np.empty(len(points), np.int64), np.full(len(points), np.inf)
    squares = np.full(len(points), np.inf)
    chosen = np.square(points - points.mean(axis=0)).sum(axis=1).argmin()
    for place in range(len(points)):
        order[place], radii[place] = chosen, np.sqrt(squares[chosen])
        squares = np.minimum(squares, np.square(points - points[chosen]).sum(axis=1))
        squares[chosen] = -1.0  # had its turn, as a twin of it, at 0, has not
        chosen = squares.argmax()
    return order, radii


def _fair_reach(probes: F32, count: int, rng: np.random.Generator) -> float:
    chosen = rng.permutation(len(probes))[:count]
    own = np.full(len(probes), -1)
    own[chosen] = np.arange(len(chosen))
    return float(np.median(nearest_distances(probes, probes[chosen], own=own)))


def _ratio(value: float, reference: float) -> float:
    """Fellows that coincide are nearer than anything but their equals."""
    if reference == 0.0:
        return 1.0 if value == 0.0 else float("inf")
    return value / reference


def _same_set_test(probes: F32, rows: F32, rng: np.random.Generator) -> tuple[float, float]:
    """Return, of two sets of equal size, the share of neighbours from the own set, and its p-value."""
    pool = np.concatenate([probes, rows])
    neighbours = np.stack([_neighbours(pool, index) for index in range(len(pool))])
    is_private = np.arange(len(pool)) >= len(probes)

    def share(sides: npt.NDArray[np.bool_]) -> float:
        return float((sides[neighbours] == sides[:, None]).mean())

    found = share(is_private)
    as_high = sum(share(rng.permutation(is_private)) >= found for _ in range(_PERMUTATIONS))
    return found, (1 + as_high) / (1 + _PERMUTATIONS)


def _neighbours(pool: F32, index: int) -> I64:
    squares = np.square(pool - pool[index]).sum(axis=1)
    squares[index] = np.inf
    return np.argpartition(squares, _NEIGHBOURS)[:_NEIGHBOURS].astype(np.int64)
