"""In which space are X-rays of one finding neighbours? Asked across scanners, in three spaces.

    python space.py --data pneumoniamnist.npz [--write]

For each image of a hospital of fleet.toml, the nearest of all other hospitals', in the 20 widest axes of the probes:
does it show the same? `pca` is the space that a public set has (`fd_protocol.public_set.SpaceKind`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_runtime.config import load_toml
from fd_runtime.models.model import F32
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.neighbours import neighbour_agreement
from fleet_sim.scenario import Scenario
from fleet_sim.tables import publish, table_of
from fleet_sim.worlds import World
from model_export.public_set import DIMENSIONS, principal_space

HERE = Path(__file__).parent
COMMAND = "python examples/healthcare-imaging/space.py --data PATH --write"
OF_EACH, SEEDS = 150, 5


def standardised(images: F32) -> F32:
    """Return images of mean 0 and deviation 1 each: brightness and contrast of a scanner are gone."""
    return (images - images.mean(axis=(1, 2, 3), keepdims=True)) / images.std(axis=(1, 2, 3), keepdims=True)


def halved(images: F32) -> F32:
    """Return images of half the height and width: noise and blur are mostly gone."""
    return (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2]) / 4


SPACES: Mapping[str, Callable[[F32], F32]] = {
    "pixels (`pca`, what is built)": lambda images: images,
    "each image standardised": standardised,
    "each image standardised, halved": lambda images: halved(standardised(images)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="space.py")
    parser.add_argument("--data", type=Path, help="PneumoniaMNIST; one's own, as fleet.toml names them: without")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    scenario = load_toml(HERE / "fleet.toml", Scenario).with_data_at(asked.data)
    worlds = [scenario.world(100 + seed) for seed in range(SEEDS)]
    rows = [[name, *agreements(worlds, vectors)] for name, vectors in SPACES.items()]
    text = table_of(["nearest image of another hospital shows the same, %", "all", *worlds[0].task.classes], rows)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish("table: spaces", COMMAND, text, HERE / "README.md")


def agreements(worlds: list[World], vectors: Callable[[F32], F32]) -> list[str]:
    """Return the share of all images, and of each finding."""
    shares = np.stack([shares_of(world, vectors) for world in worlds])
    return [estimate(column.tolist()).in_percent() for column in shares.T]


def shares_of(world: World, vectors: Callable[[F32], F32]) -> F32:
    """Return the shares of one world, float32 [1 + classes]; as many images of each hospital."""
    images = np.concatenate([part.values[:OF_EACH] for part in world.private]).astype(np.float32)
    labels = np.concatenate([part.labels[:OF_EACH] for part in world.private])
    groups = np.repeat(np.arange(len(world.private)), [min(OF_EACH, len(part)) for part in world.private])
    probes = vectors(world.probes.values.astype(np.float32)).reshape(len(world.probes), -1)
    components = principal_space(probes, DIMENSIONS).components
    return neighbour_agreement(vectors(images).reshape(len(images), -1) @ components.T, labels, groups)


if __name__ == "__main__":
    main()
