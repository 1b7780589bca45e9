"""Cuts the people of fleet.toml into files: what recipe.toml builds from, and what each device keeps to itself.

    python data.py --data A_DeviceMotion_data.zip [--out made] [--seed 100]        data of one's own: without --data

    made/factory.npz probes.npz canaries.npz    recipe.toml names them; the labels of canaries are for the server alone
    made/private/device-0.npz ...               a person each: [data] private in the agent.toml of that device alone
    made/unseen.npz                             people of whom no device has a row: model-export verify --data

Each has x [n, 9, 128] and y [n]; probes have no labels. Devices and rows are those of `run.py` with the same seed.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_runtime.config import load_toml
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples, World

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="data.py")
    parser.add_argument("--data", type=Path, help="MotionSense, in a form that fleet-sim knows")
    parser.add_argument("--fleet", type=Path, default=HERE / "fleet.toml", help="how many rows go where")
    parser.add_argument("--out", type=Path, default=HERE / "made")
    parser.add_argument("--seed", type=int, default=100)
    asked = parser.parse_args()
    scenario = load_toml(asked.fleet, Scenario)
    if asked.data:
        scenario = replace(scenario, data=replace(scenario.data, path=asked.data.absolute()))
    world = scenario.world(asked.seed)
    write(world, asked.out)
    sys.stdout.write(f"{len(world.private)} devices; seen by none of them: {', '.join(world.unseen)}\n")


def write(world: World, folder: Path) -> None:
    """Write the files of a world; the public set's canaries are no probes here, as `model-export` hides them itself."""
    (folder / "private").mkdir(parents=True, exist_ok=True)
    plain = np.delete(np.arange(len(world.probes)), world.canaries)
    np.savez_compressed(folder / "probes.npz", x=world.probes.values[plain])
    labelled = {"factory": world.factory, "canaries": world.probes.take(world.canaries), "unseen": world.test}
    labelled |= {f"private/device-{number}": part for number, part in enumerate(world.private)}
    for name, part in labelled.items():
        _save(folder / f"{name}.npz", part)


def _save(path: Path, part: Samples) -> None:
    np.savez_compressed(path, x=part.values, y=part.labels)


if __name__ == "__main__":
    main()
