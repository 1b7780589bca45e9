"""Cuts the buildings of fleet.toml into files: what recipe.toml builds from, and what each device keeps to itself.

    python data.py --data simbench-1.6.3-py3-none-any.whl [--out made] [--seed 100]    data of one's own: without --data

    made/factory.npz probes.npz canaries.npz    recipe.toml names them; the labels of canaries are for the server alone
    made/private/device-0.npz ...               a building each: [data] private in the agent.toml of that device alone
    made/own/device-0.npz ...                   days of that building that its device does not have
    made/unseen.npz                             of buildings without a device: model-export verify --data

Each has x [n, 1, 96] and y [n]; probes have no labels. Devices and rows are those of `run.py` with the same seed.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

from fleet_sim.world_files import run

if __name__ == "__main__":
    run(Path(__file__).parent)
