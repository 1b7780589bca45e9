"""Every baseline at its best: a stated grid, the choice made on validation data, never on test data.

The budget is the same for all, so a method gains nothing from having more knobs. Of a grid with more points than that,
those that differ from the start in the fewest knobs come first, drawn at random among equals (Bergstra, Bengio 2012).
What extends FedAvg starts from FedAvg's own best: there its additional knob is tried in full before anything else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.files import write_atomically
from fd_runtime.fitting import FitTerms, TrainingDivergedError
from fd_runtime.models.model import ThetaError
from fleet_sim.worlds import Samples, World

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 2e-1)
LOCAL_EPOCHS = (2, 5, 10, 20)
BUDGET = 24
OWN_SHARE = 0.2
"""Of a device's rows, kept from it while settings are chosen: what is its own is judged on them."""
DIVERGED = (TrainingDivergedError, ThetaError)

Axes: TypeAlias = Mapping[str, Sequence[float]]
"""Values to try for each knob, by its name in `Knobs`."""
Candidate = TypeVar("Candidate")


@dataclass(frozen=True, slots=True)
class Knobs:
    """What may be tuned; each baseline reads its own.

    Attributes:
        epochs: of a device in each round; all of them where there are no rounds.
        learning_rate: for them.
        prox: mu of FedProx.
        server_momentum: beta of FedAvgM.
        server_epochs: FedDF: over the probes, each round.
        own_epochs, own_rate: of a device that fine-tunes the last average.
    """

    epochs: int = 5
    learning_rate: float = 1e-2
    prox: float = 0.0
    server_momentum: float = 0.0
    server_epochs: int = 5
    own_epochs: int = 5
    own_rate: float = 1e-3


def candidates(start: Knobs, axes: Axes, budget: int) -> list[Knobs]:
    """Return points of the grid around `start`, at most `budget`; a larger budget has all those of a smaller one."""
    points = [_at(start, dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    turn = np.random.default_rng(len(points)).permutation(len(points))
    drawn = sorted(range(len(points)), key=lambda index: (_distance(points[index], start), turn[index]))[:budget]
    return [points[index] for index in sorted(drawn)]


def _at(start: Knobs, values: Mapping[str, Any]) -> Knobs:
    return replace(start, **values)


def _distance(knobs: Knobs, start: Knobs) -> int:
    """Return in how many knobs they differ."""
    return sum(ours != theirs for ours, theirs in zip(astuple(knobs), astuple(start), strict=True))


def tuned(points: Sequence[Knobs], score: Callable[[Knobs], float], path: Path) -> Knobs:
    """Return the best of `points`. Each score is kept at `path`, and a call that was cut short goes on from there."""
    scores = _read(path)
    for knobs in points:
        if knobs not in scores:
            scores[knobs] = _score(knobs, score)
            _write(path, scores)
    return max(points, key=scores.__getitem__)


def validated(world: World) -> World:
    """Return `world` for choosing settings: validation rows stand for test rows, and private rows for own ones.

    Raises:
        InvalidValueError: it has no validation rows.
    """
    if not len(world.validation):
        raise InvalidValueError(f"world {world.name} has no validation rows to choose settings on")
    parts = [_parted(part, index) for index, part in enumerate(world.private)]
    return replace(
        world,
        test=world.validation,
        private=tuple(private for private, _ in parts),
        own=tuple(own for _, own in parts),
    )


def grid(learning_rates: Iterable[float] = LEARNING_RATES, epochs: Iterable[int] = LOCAL_EPOCHS) -> list[FitTerms]:
    """Return the terms of every pair, batches of 64 rows."""
    return [FitTerms(epochs=count, learning_rate=rate) for rate, count in product(learning_rates, epochs)]


def best(terms: Iterable[FitTerms], score: Callable[[FitTerms], float]) -> FitTerms:
    """Return the terms with the highest score, the first of equals; those that diverge never win."""
    return max(terms, key=lambda each: _score(each, score))


def _score(candidate: Candidate, score: Callable[[Candidate], float]) -> float:
    try:
        found = score(candidate)
    except DIVERGED:
        return -math.inf
    return -math.inf if math.isnan(found) else found  # NaN: these rows cannot tell


def _parted(part: Samples, index: int) -> tuple[Samples, Samples]:
    """Return what device `index` keeps, and what is kept from it."""
    order = np.random.default_rng([index, 5]).permutation(len(part))
    count = round(OWN_SHARE * len(part))
    return part.take(order[count:]), part.take(order[:count])


def _read(path: Path) -> dict[Knobs, float]:
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())
    return {Knobs(**row["knobs"]): -math.inf if row["score"] is None else row["score"] for row in rows}


def _write(path: Path, scores: Mapping[Knobs, float]) -> None:
    """Write what has been tried; null = it diverged."""
    rows = [{"knobs": asdict(knobs), "score": s if math.isfinite(s) else None} for knobs, s in scores.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(rows, indent=1).encode())
