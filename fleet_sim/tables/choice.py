"""The settings of a federation, chosen as those of baselines are: on validation rows of other seeds, never on test.

    start --each value of the first axis--> best of them --each value of the second, ...--> chosen

One axis after the other, from the scenario as it stands; no more than `budget` settings are played. They are judged at
the end of all rounds by the student, or by the mean device if `judged` says so or there is no student: by accuracy on
what stands for the test rows, or by what `by` names. What a folder holds is not played again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fleet_sim.baselines.standings import asked
from fleet_sim.baselines.tuning import validated
from fleet_sim.comparison.comparing import Comparison, MakeWorld, compare
from fleet_sim.pool import Map
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World

Axes = Mapping[str, Sequence[Any]]
"""Values to try for each setting, by its path in the scenario: `training.probe_weight`, `method.terms.clip_rank`."""

Judged = Literal["student", "mean device"]


@dataclass(frozen=True)
class Choice:
    """The best scenario that was tried, and what it has on each axis."""

    scenario: Scenario
    values: Mapping[str, Any]

    @property
    def text(self) -> str:
        chosen_ones = ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in self.values.items())
        return chosen_ones or "as the scenario has them"

    def of(self, scenario: Scenario) -> Choice:
        """Return another scenario with these values."""
        for path, value in self.values.items():
            scenario = varied(scenario, path, value)
        return replace(self, scenario=scenario)


def chosen(
    world: MakeWorld,
    start: Scenario,
    axes: Axes,
    budget: int,
    *,
    seeds: tuple[int, ...],
    folder: Path,
    mapped: Map = map,
    by: str = "",
    judged: Judged = "student",
) -> Choice:
    """Return the best settings that `budget` trials find; `by` is one of `start.scores`, "" accuracy.

    Raises:
        InvalidValueError: a world lacks validation rows, or there is no such setting.
    """
    if not axes:
        return Choice(start, {})
    score = partial(_score, world, seeds=seeds, folder=folder, mapped=mapped, by=by, judged=judged)
    best, scores = start, {start: score(start)}
    for path, values in axes.items():
        for scenario in [varied(best, path, value) for value in values]:
            if scenario not in scores and len(scores) < budget:
                scores[scenario] = score(scenario)
        best = max(scores, key=scores.__getitem__)
    return Choice(best, {path: _at(best, path) for path in axes})


def varied(scenario: Scenario, path: str, value: object) -> Scenario:
    """Return the scenario with another value at `path`."""
    changed: Scenario = _replaced(scenario, path.split("."), value)
    return changed


def _replaced(part: Any, names: Sequence[str], value: object) -> Any:
    first, *rest = names
    return replace(part, **{first: _replaced(getattr(part, first), rest, value) if rest else value})


def _at(scenario: Scenario, path: str) -> Any:
    part: Any = scenario
    for name in path.split("."):
        part = getattr(part, name)
    return part


def _score(
    world: MakeWorld, scenario: Scenario, *, seeds: tuple[int, ...], folder: Path, mapped: Map, by: str, judged: Judged
) -> float:
    rule = scenario.method.name
    unused = (max(seeds) + 1,)  # a rule has no settings that a comparison would choose
    compared = compare(
        Comparison(partial(judged_by_validation, world), scenario, (rule,), seeds, unused), folder, mapped=mapped
    )
    place = 0 if judged == "student" else -1
    ends = [asked(cell.standings[place], f"{by}: all" if by else "all") for cell in compared.cells]
    return -math.inf if any(map(math.isnan, ends)) else float(np.mean(ends))


def judged_by_validation(world: MakeWorld, seed: int) -> World:
    """Return the world of `seed` with validation rows in the place of test rows."""
    return validated(world(seed))
