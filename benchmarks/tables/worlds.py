"""The worlds of the tables: cuts of a scenario, with fewer rows where two cores are to end within an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fleet_sim.comparison.comparing import MakeWorld
from fleet_sim.data.terms import DataTerms
from fleet_sim.scenario import ModelTerms, Scenario
from fleet_sim.worlds import Cut, Samples, World
from model_export.recipe import PretrainTerms


def data(name: str, paths: Mapping[str, Path]) -> DataTerms:
    """Return a data set, where it lies or where `fleet-sim data` gets it."""
    return DataTerms(name, paths.get(name))


def on_few_digits(scenario: Scenario) -> Scenario:
    """Return a scenario of seconds, for a table's short form: its terms, on 8x8 digits of four devices."""
    return replace(
        scenario,
        data=DataTerms("digits"),
        cut=Cut(factory=100, probes=100, canaries=20, validation=100, test=200, own_fraction=0.2),
        devices=4,
        rounds=2,
        models=ModelTerms(("tab-s",), "tab-s", PretrainTerms(epochs=5)),
        training=replace(scenario.training, epochs=2),
    )


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
    world = make(seed)
    columns = int(np.prod(world.task.sample_shape))

    def flat(part: Samples) -> Samples:  # some parts have no rows
        return Samples(part.values.reshape(len(part), columns), part.labels)

    parts = {name: flat(getattr(world, name)) for name in ("factory", "probes", "validation", "test")}
    task = replace(world.task, sample_shape=(columns,))
    private, own = (tuple(map(flat, each)) for each in (world.private, world.own))
    return replace(world, task=task, private=private, own=own, **parts)
