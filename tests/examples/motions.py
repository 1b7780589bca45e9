"""Made-up people with phones, in the form in which MotionSense's authors publish theirs: any clone can play them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from fleet_sim.data.sensors import ACTIVITIES

RATE_HZ = 50
STEPS_HZ = {"dws": 2.4, "ups": 1.6, "wlk": 2.0, "jog": 3.0, "sit": 0.0, "std": 0.0}
SWING = {"dws": 1.2, "ups": 0.6, "wlk": 0.8, "jog": 2.5, "sit": 0.0, "std": 0.0}
SENSORS = ("attitude", "gravity", "rotationRate", "userAcceleration")
HEAD = ",".join(["", *(f"{sensor}.{axis}" for sensor in SENSORS for axis in "xyz")])


def write_motions(path: Path, people: int = 6, seconds: float = 10.0) -> Path:
    """Write one recording of `seconds` of each person and activity; subjects count from 1."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for person in range(1, people + 1):
            for number, activity in enumerate(ACTIVITIES):
                rows = _recording(activity, np.random.default_rng([person, number]), round(seconds * RATE_HZ))
                lines = (",".join(map(str, [line, *row])) for line, row in enumerate(rows.round(4).tolist()))
                text = "\n".join([HEAD, *lines, ""])
                archive.writestr(f"A_DeviceMotion_data/{activity}_{number + 1}/sub_{person}.csv", text)
    return path


def _recording(activity: str, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Who sits has the phone lying, who stands has it upright; steps swing all axes, of each person in another way."""
    gravity = np.array([0.0, 0.1, -1.0] if activity == "sit" else [0.0, 1.0, 0.1]) + rng.normal(0, 0.05, 3)
    phase = 2 * np.pi * STEPS_HZ[activity] * rng.uniform(0.9, 1.1) * np.arange(rows) / RATE_HZ
    swing = SWING[activity] * np.sin(phase[:, None] + rng.uniform(0, 2 * np.pi, 9)) * rng.uniform(0.5, 1.5, 9)
    swing[:, :3] *= 0.1
    return np.hstack([np.zeros((rows, 3)), swing + np.r_[gravity, np.zeros(6)] + rng.normal(0, 0.02, (rows, 9))])
