"""A real bundle that is made in a second: a CNN of small pictures with an int8 backbone, its weights as drawn."""

from __future__ import annotations

import shutil

import numpy as np

from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import Bundle, load_bundle
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.support.once import once

PICTURES = Task(("cat", "dog", "fox"), (1, 12, 12), "uint8", Preprocessing(1 / 255))


def pictures(rows, seed=0, brightness=0.0):
    """Blobs of light, one bright corner a class; `brightness` in -1..1 moves all pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(PICTURES.classes), rows)
    samples = rng.normal(60.0, 20.0, (rows, 1, 12, 12))
    for row, label in enumerate(labels):
        samples[row, 0, 4 * label : 4 * label + 4, 4 * label : 4 * label + 4] += 120
    return np.clip(samples + 255 * brightness, 0, 255).astype(np.uint8), labels.astype(np.int64)


def small_bundle(folder, rows=64, **changes) -> Bundle:
    recipe = Recipe("small", "cnn-s", **{"pretraining": None, "tflite": "none", **changes})

    def make(folder):
        calibration = pictures(rows, seed=7)[0]
        data = FactoryData(calibration[:0], np.empty(0, np.int64), calibration=calibration)
        build(recipe, PICTURES, data, folder / "bundle")

    shutil.copytree(once(f"small bundle {rows} {recipe}", make) / "bundle", folder)
    return load_bundle(folder)
