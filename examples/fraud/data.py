"""Cuts the banks of fleet.toml into files: what recipe.toml builds from, and what each keeps to itself.

    python banks.py --data creditcard.csv      first: made/banks.npz; or bring your own, see README.md
    python data.py [--out made] [--seed 100]

    made/factory.npz probes.npz canaries.npz    recipe.toml names them; the labels of canaries are for the server alone
    made/private/device-0.npz ...               a bank each: [data] private in the agent.toml of that device alone
    made/own/device-0.npz ...                   what comes to that bank later
    made/unseen.npz                             what comes later to all of them: model-export verify --data

Each has x [n, 29] and y [n]; probes have no labels. Devices and rows are those of `run.py` with the same seed.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from banks import world

from fleet_sim.world_files import run

if __name__ == "__main__":
    run(Path(__file__).parent, world)
