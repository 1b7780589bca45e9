"""A world as files: what `model-export build` makes bundles of, and what each device keeps to itself.

    factory.npz probes.npz canaries.npz    for the recipe; the labels of canaries are for the server alone
    private/device-0.npz ...               [data] private in the agent.toml of that device alone
    own/device-0.npz ...                   of its kind, kept from it, where the cut keeps some
    unseen.npz                             rows of nobody: model-export verify --data

Each has x [n, ...] and y [n]; probes have no labels. Devices and rows are those of the simulation with the same seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fd_runtime.command_line import Parser, run_program
from fd_runtime.config import load_toml
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples, World


def run(home: Path, cut: Callable[[Scenario, int], World] = Scenario.world) -> None:
    """Cut the world of `home`/fleet.toml as the command line asks, and end: the `data.py` of an example.

    Args:
        home: folder of the example.
        cut: makes the world of a seed.
    """

    def write(asked: argparse.Namespace) -> int:
        world = cut(load_toml(asked.fleet, Scenario).with_data_at(asked.data), asked.seed)
        write_world(world, asked.out)
        unseen = f"; seen by none of them: {', '.join(world.unseen)}" if world.unseen else ""
        sys.stdout.write(f"{len(world.private)} devices{unseen}\n")
        return 0

    parser = Parser(prog="data.py")
    parser.add_argument("--data", type=Path, help="what fleet.toml names, in a form that fleet-sim knows")
    parser.add_argument("--fleet", type=Path, default=home / "fleet.toml", help="how many rows go where")
    parser.add_argument("--out", type=Path, default=home / "made")
    parser.add_argument("--seed", type=int, default=100)
    parser.set_defaults(run=write)
    sys.exit(run_program(parser))


def write_world(world: World, folder: Path) -> None:
    """Write the files; canaries are no probes here, as `model-export` hides them among these itself."""
    plain = np.delete(np.arange(len(world.probes)), world.canaries)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "probes.npz", x=world.probes.values[plain])
    labelled = {"factory": world.factory, "canaries": world.probes.take(world.canaries), "unseen": world.test}
    labelled |= {f"private/device-{number}": part for number, part in enumerate(world.private)}
    labelled |= {f"own/device-{number}": part for number, part in enumerate(world.own) if len(part)}
    for name, part in labelled.items():
        _save(folder / f"{name}.npz", part)


def _save(path: Path, part: Samples) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, x=part.values, y=part.labels)
