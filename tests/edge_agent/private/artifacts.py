"""A bundle with an int8 backbone, as `model-export` makes it, and samples that no chance repeats."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import load_bundle
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.private.noise import NOW_MS, sample, samples

TASK = Task(("a", "b", "c"), (1, 12, 12), "uint8", Preprocessing(1 / 255))
DAY_MS = 86_400_000


def write_bundle(folder, task=TASK, seed=0):
    pictures = samples(64, seed=99)
    nothing = FactoryData(pictures[:0], np.zeros(0, np.int64), calibration=pictures)
    build(Recipe("pictures", "cnn-s", pretraining=None, seed=seed, tflite="none"), task, nothing, folder)
    return load_bundle(folder)


@dataclass
class Clock:
    now_ms: int = NOW_MS

    def __call__(self):
        return self.now_ms


class Bench:
    """A store in a folder, opened again and again, as after crashes: nothing is closed."""

    def __init__(self, folder, manifest, **settings):
        self.path, self.manifest, self.clock, self.told = folder / "private.db", manifest, Clock(), []
        self.settings = StoreSettings(**{"megabytes": 8, "rows": 150, "questions": 10, **settings})
        self.store = self.open()

    def open(self, **settings):
        self.settings = replace(self.settings, **settings)
        self.store = PrivateStore.open(
            self.path, self.settings, self.manifest, clock=self.clock, rng=random.Random(0), tell=self.told.append
        )
        return self.store

    def add(self, number, label=None, confidence=None, **facts):
        """Offer sample `number` of one long noise."""
        known = {"sample_id": f"id-{number}", "at_ms": self.clock(), "source": "camera", **facts}
        return self.store.add(sample(number), label=label, confidence=confidence, **known)

    def ids(self):
        return {facts.sample_id for facts in self.store._pools.facts.values()}

    def pool(self, name):
        return {facts.sample_id for facts in self.store._pools.facts.values() if facts.pool.value == name}


def windows(data, size=8):
    """Every run of `size` bytes in an array."""
    data = np.ascontiguousarray(data).tobytes()
    return {data[start : start + size] for start in range(len(data) - size + 1)}


def found_in(folder, needles):
    """The files in a folder, and in folders in it, that hold one of the needles."""
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and holds(path.read_bytes(), needles)]


def holds(data, needles):
    """Whether one of the needles, of any lengths, is in the data."""
    return any(
        data[start : start + size] in of_size
        for size in {len(needle) for needle in needles}
        for of_size in [{needle for needle in needles if len(needle) == size}]
        for start in range(len(data) - size + 1)
    )
