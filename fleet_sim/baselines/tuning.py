"""Every baseline at its best: a stated grid, the choice made on validation data, never on test data.

The budget is the same for all, so a method gains nothing from having more knobs. A search goes uphill along one knob
after the other, as far as it helps, and begins again at points drawn at random where nothing nearby does (coordinate
search, Hooke and Jeeves 1961, restarted): an optimum at the edge of a grid is found with few trials. What extends
FedAvg starts from FedAvg's own best, and tries its additional knob before anything else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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


def tuned(start: Knobs, axes: Axes, budget: int, score: Callable[[Knobs], float], path: Path) -> Knobs:
    """Return the best that `search` finds; scores are kept at `path`, and a call that was cut short goes on there."""
    scores = _read(path)

    def ask(knobs: Knobs) -> float:
        if knobs not in scores:
            scores[knobs] = _score(knobs, score)
            _write(path, scores)
        return scores[knobs]

    return search(start, axes, budget, ask)


def search(start: Knobs, axes: Axes, budget: int, ask: Callable[[Knobs], float]) -> Knobs:
    """Return the best point of a grid that `budget` trials find, the first of equals.

    It begins at `start`; where that is not on an axis, in the middle of it, and such axes come first. The trials of a
    smaller budget are the first ones of a larger.
    """
    trials = _Trials(ask, budget)
    new = [name for name in axes if getattr(start, name) not in axes[name]]
    ways = {name: sorted(axes[name]) for name in (*new, *axes)}
    best = _uphill(_at(start, {name: ways[name][len(ways[name]) // 2] for name in new}), ways, trials)
    for drawn in _shuffled(start, ways):
        if trials(drawn) > trials(best):
            best = _uphill(drawn, ways, trials)
    return best


@dataclass
class _Trials:
    """Scores of at most `budget` points; what is not tried any more scores less than anything."""

    ask: Callable[[Knobs], float]
    budget: int
    scores: dict[Knobs, float] = field(default_factory=dict)

    def __call__(self, knobs: Knobs) -> float:
        if knobs not in self.scores and len(self.scores) < self.budget:
            self.scores[knobs] = self.ask(knobs)
        return self.scores.get(knobs, -math.inf)


def _uphill(here: Knobs, ways: Axes, trials: _Trials) -> Knobs:
    """Return where a step along no axis is better."""
    before = None
    while here != before:
        before = here
        for name, values in ways.items():
            here = _along(here, name, values, trials)
    return here


def _along(here: Knobs, name: str, values: Sequence[float], trials: _Trials) -> Knobs:
    """Return where it ends to go along one axis as long as that is better: up, or else down."""
    place = values.index(getattr(here, name))
    for way in (values[place + 1 :], values[:place][::-1]):
        best = here
        for value in way:
            there = _at(here, {name: value})
            if trials(best) >= trials(there):
                break
            best = there
        if best is not here:
            return best
    return here


def _shuffled(start: Knobs, axes: Axes) -> list[Knobs]:
    """Return all points of the grid, in an order drawn once for all."""
    points = [_at(start, dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    return [points[index] for index in np.random.default_rng(len(points)).permutation(len(points))]


def _at(start: Knobs, values: Mapping[str, Any]) -> Knobs:
    return replace(start, **values)


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
