"""The worlds of the tables: cuts of a scenario, with fewer rows where two cores are to end within an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fleet_sim.comparison import MakeWorld
from fleet_sim.data.terms import DataTerms
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples, World


def data(name: str, paths: Mapping[str, Path]) -> DataTerms:
    """Return a data set, where it lies or where `fleet-sim data` gets it."""
    return DataTerms(name, paths.get(name))


def thinned(scenario: Scenario, *, rows: int = 0, share: float = 1.0) -> MakeWorld:
    """Return the worlds of a scenario whose devices hold a `share` of their rows, `rows` at most; 0 = any number."""
    return partial(_thinned, scenario, rows, share)


def flattened(world: MakeWorld) -> MakeWorld:
    """Return the same worlds with samples of one axis, for families that read columns."""
    return partial(_flattened, world)


def _thinned(scenario: Scenario, rows: int, share: float, seed: int) -> World:
    def few(part: Samples) -> Samples:  # its rows lie in random order
        count = round(share * len(part))
        return part.take(np.arange(min(rows, count) if rows else count))

    world = scenario.world(seed)
    return replace(world, private=tuple(few(part) for part in world.private))


def _flattened(make: MakeWorld, seed: int) -> World:
    def flat(part: Samples) -> Samples:
        return Samples(part.values.reshape(len(part), -1), part.labels)

    world = make(seed)
    parts = {name: flat(getattr(world, name)) for name in ("factory", "probes", "validation", "test")}
    task = replace(world.task, sample_shape=(int(np.prod(world.task.sample_shape)),))
    private, own = (tuple(map(flat, each)) for each in (world.private, world.own))
    return replace(world, task=task, private=private, own=own, **parts)
