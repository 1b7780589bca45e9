"""Samples that no chance repeats. Light: a process that is to be killed imports it."""

from __future__ import annotations

import numpy as np

NOW_MS = 1_800_000_000_000


def samples(count, seed=0, shape=(1, 12, 12)):
    """Noise, uint8 [count, *shape]: 8 bytes of it stand nowhere by chance."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def sample(number):
    return samples(1, seed=number)[0]
