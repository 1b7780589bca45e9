"""The worlds of the tables: cuts of a scenario, with fewer rows on devices where two cores are to end within an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fleet_sim.comparison import MakeWorld
from fleet_sim.data.terms import DataTerms
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World


def data(name: str, paths: Mapping[str, Path]) -> DataTerms:
    """Return a data set, where it lies or where `fleet-sim data` gets it."""
    return DataTerms(name, paths.get(name))


def thinned(scenario: Scenario, rows: int = 0) -> MakeWorld:
    """Return the worlds of a scenario, in which a device holds the first `rows` of its rows; 0 = all of them."""
    return partial(_thinned, scenario, rows)


def _thinned(scenario: Scenario, rows: int, seed: int) -> World:
    world = scenario.world(seed)
    if not rows:
        return world
    private = tuple(part.take(np.arange(min(rows, len(part)))) for part in world.private)
    return replace(world, private=private)
