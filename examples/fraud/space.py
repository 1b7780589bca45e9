"""In which space are payments of one class neighbours? Asked across banks, in three spaces.

    python space.py --data creditcard.csv [--write]

For each payment that a bank of fleet.toml learns from, the nearest of all other banks', in the 20 widest axes of the
probes: is it of the same class? `pca` is the space that a public set has (`fd_protocol.public_set.SpaceKind`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np
from banks import world, write_banks

from fd_runtime.config import load_toml
from fd_runtime.models.model import F32
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.neighbours import neighbour_agreement
from fleet_sim.scenario import Scenario
from fleet_sim.tables import publish, table_of
from fleet_sim.worlds import World
from model_export.public_set import DIMENSIONS, principal_space

HERE = Path(__file__).parent
COMMAND = "python examples/fraud/space.py --data PATH --write"
SEEDS = 5
AMOUNT = 28
MEAN, DEVIATION = 88.0, 250.0
"""Of an amount, in euros, about."""


def in_euros(payments: F32) -> F32:
    """Return payments whose last column is an amount as large as money is: what comes of columns as they lie."""
    return np.concatenate([payments[:, :AMOUNT], MEAN + DEVIATION * payments[:, AMOUNT:]], axis=1)


SPACES: Mapping[str, Callable[[F32], F32]] = {
    "columns in deviations (`pca`, what is built)": lambda payments: payments,
    "the same, the amount in euros": in_euros,
    "which columns are missing, too": lambda payments: np.hstack([payments, np.isnan(payments)]).astype(np.float32),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="space.py")
    parser.add_argument("--data", type=Path, required=True, help="creditcard.csv")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    scenario = load_toml(HERE / "fleet.toml", Scenario)
    scenario = scenario.with_data_at(write_banks("card-fraud", asked.data, HERE / "made" / "card-fraud.npz"))
    worlds = [world(scenario, 100 + seed) for seed in range(SEEDS)]
    rows = [[name, *agreements(worlds, vectors)] for name, vectors in SPACES.items()]
    text = table_of(["nearest payment of another bank is of its class, %", "all", *worlds[0].task.classes], rows)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish("table: spaces", COMMAND, text, HERE / "README.md")


def agreements(worlds: list[World], vectors: Callable[[F32], F32]) -> list[str]:
    """Return the share of all payments, and of each class."""
    shares = np.stack([shares_of(each, vectors) for each in worlds])
    return [estimate(column.tolist()).in_percent() for column in shares.T]


def shares_of(made: World, vectors: Callable[[F32], F32]) -> F32:
    """Return the shares of one world, float32 [1 + classes]."""
    space = principal_space(vectors(np.asarray(made.probes.values, np.float32)), DIMENSIONS)
    points = [space.locate(vectors(np.asarray(part.values, np.float32))) for part in made.private]
    labels = np.concatenate([part.labels for part in made.private])
    bank = np.concatenate([np.full(len(part), number) for number, part in enumerate(made.private)])
    return neighbour_agreement(np.concatenate(points), labels, bank)


if __name__ == "__main__":
    main()
