"""Cuts the texts of fleet.toml into files: what recipe.toml builds from, and what each device keeps to itself.

    python texts.py --speakers input.txt --plays shakespeare.zip      once: the texts
    python data.py [--out made] [--seed 100]

    made/factory.npz probes.npz canaries.npz    recipe.toml names them; the labels of canaries are for the server alone
    made/private/device-0.npz ...               a person each: [data] private in the agent.toml of that device alone
    made/own/device-0.npz ...                   of that person, kept from the device
    made/unseen.npz                             people of whom no device has a row: model-export verify --data

Each has x [n, 8], numbers of words, and y [n], the word that comes next; probes have no labels. Devices and rows are
those of `run.py` with the same seed.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from fleet_sim.world_files import run

if __name__ == "__main__":
    run(Path(__file__).parent)
