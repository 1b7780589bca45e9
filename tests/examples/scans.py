"""Made-up chest images in the form in which MedMNIST publishes PneumoniaMNIST: any clone can play them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 28
PARTS = {"train": 300, "val": 40, "test": 60}
RANGE = np.linspace(-1, 1, SIZE)


def write_scans(path: Path, parts=PARTS) -> Path:
    """Write the parts; three of four patients are ill, as in the original."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in parts.items():
        labels = (rng.random(count) < 0.75).astype(np.uint8)
        arrays |= {f"{name}_images": _images(labels, rng), f"{name}_labels": labels[:, None]}
    np.savez(path, **arrays)
    return path


def _images(labels, rng):
    """Two dark lungs on a grey body; of who is ill, one has a bright spot somewhere."""
    lungs = sum(np.exp(-(((RANGE[None] - x) / 0.25) ** 2) - (RANGE[:, None] / 0.6) ** 2) for x in (-0.4, 0.4))
    spots = np.stack([_spot(rng.choice([-0.4, 0.4]), rng.uniform(-0.4, 0.4)) for _ in labels])
    images = 150 - 90 * lungs + 70 * labels[:, None, None] * spots + rng.normal(0, 12, (len(labels), SIZE, SIZE))
    return images.clip(0, 255).astype(np.uint8)


def _spot(x, y):
    return np.exp(-((RANGE[None] - x) ** 2 + (RANGE[:, None] - y) ** 2) / 0.05)
