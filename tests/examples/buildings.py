"""Made-up buildings in the form of SimBench's load profiles: any clone can play them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from fleet_sim.data.loads import HOURS, QUARTERS

IN_WHEEL = "simbench/networks/1-complete_data-mixed-all-0-sw/LoadProfile.csv"
NAMES = ("G0-A", "G1-B", "H0-A", "H0-B", "H0-C", "L0-A", "L2-M")


def write_loads(path: Path, days: int = 20) -> Path:
    """Write a wheel with a table of buildings, each with its own hour of most use, beside columns that are none."""
    quarters = days * HOURS * QUARTERS
    series = {name: _series(np.random.default_rng(number), quarters, 7 + number) for number, name in enumerate(NAMES)}
    columns = {"lv_rural1_pload": np.zeros(quarters)}
    for name, own in series.items():
        columns |= {f"{name}_qload": np.ones(quarters), f"{name}_pload": own}
    times = [f"{1 + q // 96:02}.01.2016 {q // 4 % 24:02}:{q % 4 * 15:02}" for q in range(quarters)]
    rows = zip(times, *(values.round(6).tolist() for values in columns.values()), strict=True)
    text = "\n".join([";".join(["time", *columns]), *(";".join(map(str, row)) for row in rows), ""])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(IN_WHEEL, text)
    return path


def _series(rng: np.random.Generator, quarters: int, peak_h: int) -> np.ndarray:
    hour = np.arange(quarters) / QUARTERS % HOURS
    return 0.2 + np.exp(-(((hour - peak_h) / 4) ** 2)) + rng.uniform(0, 0.1, quarters)
