"""What every process of a demo derives the rest from: a folder, how many rounds, a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.worlds import World, new_class

LITERT_DEVICE = 1
"""Of the ten, the one that runs in LiteRT."""


@dataclass(frozen=True)
class Setting:
    """One demo. `folder` takes everything that is written."""

    folder: Path
    rounds: int = 15
    seed: int = 0

    @cached_property
    def scenario(self) -> Scenario:
        return replace(PRESETS["new-class"], rounds=self.rounds)

    @cached_property
    def world(self) -> World:
        """No canaries: the demo's server knows no label of a probe."""
        return new_class(self.seed, canaries=0)

    @property
    def factory(self) -> Path:
        """Bundles and public set."""
        return self.folder / "factory"
