"""A bundle and a public set that a server can start with, made in a second."""

import shutil

import numpy as np

from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import load_public_set
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe
from tests.support.once import once

TASK = Task(("a", "b", "c"), (12,), "uint8", Preprocessing(1 / 255))


def build_artifacts(folder):
    """Write `bundle` and `public_set` into `folder`, where the settings of `broker-server init` look for them."""
    shutil.copytree(once("artifacts", _build), folder, dirs_exist_ok=True)
    return load_public_set(folder / "public_set")


def _build(folder):
    samples = np.random.default_rng(0).integers(0, 256, (30, 12), dtype=np.uint8)
    data = FactoryData(samples[:0], np.empty(0, np.int64), samples)
    build(Recipe("small", "mlp-s", tflite="none"), TASK, data, folder / "bundle")
    build_public_set(folder / "public_set", samples, TASK, seed=0)


def three_kinds(count):
    """Return samples uint8 [count, 12] and labels [count]: each kind is bright in its own third."""
    rng, labels = np.random.default_rng(0), np.arange(count) % 3
    pictures = rng.integers(0, 80, (count, 12))
    pictures[np.arange(12) // 4 == labels[:, None]] += 150
    return pictures.astype(np.uint8), labels
