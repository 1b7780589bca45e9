"""What keeping samples costs: bytes a row, microseconds an operation, bytes written for a day of a camera.

python benchmarks/private_store.py [--folder FOLDER]      a folder on the disk that a device would use
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import FORMAT, FeatureSpec, FileEntry, Manifest, Role, Task, TrainSpec

SHAPES = {
    "table of 12": ((12,), "float32"),
    "28 x 28 grey": ((1, 28, 28), "uint8"),
    "224 x 224 colour": ((3, 224, 224), "uint8"),
}
LAYOUT = ThetaLayout.of([("w", (4, 3))])
FEATURES = 128
DAY_FRAMES = 86_400


def manifest(shape: tuple[int, ...], dtype: str) -> Manifest:
    entry = {role: FileEntry.of(f"{role.value}.bin", b"x") for role in (Role.TAIL, Role.TRAIN_STEP, Role.BACKBONE)}
    entry[Role.THETA] = FileEntry.of("theta.bin", bytes(4 * LAYOUT.size))
    return Manifest(
        format=FORMAT, name="bench", family="bench", version="1", task=Task(("a", "b", "c"), shape, dtype),
        files=entry, layout=LAYOUT, features=FeatureSpec((FEATURES,), "uint8"), training=TrainSpec(64, "sgd"),
        verified_on=("onnxruntime",),
    )  # fmt: skip


def written_bytes() -> int:
    """What this process has handed to the disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"])


def measure(folder: Path, name: str, *, encrypted: bool) -> dict[str, float]:
    shape, dtype = SHAPES[name]
    key = folder / "key" if encrypted else None
    settings = StoreSettings(megabytes=64, rows=1000, key_file=key)
    rng = np.random.default_rng(0)
    samples = (rng.random((50, *shape)) * 255).astype(dtype)
    store = PrivateStore.open(folder / "private.db", settings, manifest(shape, dtype), rng=random.Random(0))
    capacity = store.summary().capacity["labelled"]
    add = {"confidence": None, "source": "bench", "at_ms": time.time_ns() // 1_000_000}
    start_s, bytes_before = time.perf_counter(), written_bytes()
    for number in range(capacity):
        store.add(samples[number % 50], sample_id=f"bench/{number}", label=number % 3, **add)
    fill_s, fill_bytes = time.perf_counter() - start_s, written_bytes() - bytes_before
    start_s, bytes_before = time.perf_counter(), written_bytes()
    offered = 5000
    for number in range(capacity, capacity + offered):
        store.add(samples[number % 50], sample_id=f"bench/{number}", label=number % 3, **add)
    later_s, later_bytes = time.perf_counter() - start_s, written_bytes() - bytes_before
    start_s = time.perf_counter()
    rows = len(store.rows())
    read_s = time.perf_counter() - start_s
    size = store.summary().disk_bytes
    store.close()
    start_s = time.perf_counter()
    PrivateStore.open(folder / "private.db", settings, manifest(shape, dtype)).close()
    return {
        "rows": rows,
        "bytes a row": size / rows,
        "ms a kept row": fill_s / capacity * 1e3,
        "kB written a kept row": fill_bytes / capacity / 1e3,
        "ms an offered row, full": later_s / offered * 1e3,
        "MB written by 5000 offers, full": later_bytes / 1e6,
        "us to read a row": read_s / rows * 1e6,
        "ms to open": (time.perf_counter() - start_s) * 1e3,
    }


def day_of_a_camera(folder: Path) -> float:
    """MB written while a camera sees a frame a second for a day and nobody labels any: only questions are kept."""
    shape, dtype = SHAPES["28 x 28 grey"]
    store = PrivateStore.open(folder / "private.db", StoreSettings(), manifest(shape, dtype), rng=random.Random(0))
    rng, before = np.random.default_rng(0), written_bytes()
    sample, begin_ms = np.zeros(shape, dtype), time.time_ns() // 1_000_000
    for second in range(DAY_FRAMES):
        confidence = 0.5 + rng.random() / 2
        store.add(
            sample,
            sample_id=f"door/{second}",
            label=None,
            confidence=confidence,
            guess=0,
            at_ms=begin_ms + 1000 * second,
            source="door",
        )
    store.close()
    return (written_bytes() - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    folder = parser.parse_args().folder
    for name in SHAPES:
        for encrypted in (False, True):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                found = measure(Path(place), name, encrypted=encrypted)
            print(
                f"{name}, {'AES-GCM' if encrypted else 'plain'}: "
                + ", ".join(f"{key} {value:.3g}" for key, value in found.items())
            )
    with tempfile.TemporaryDirectory(dir=folder) as place:
        print(f"a camera of 1 frame a second for a day, none labelled: {day_of_a_camera(Path(place)):.3g} MB written")
    os.sync()


if __name__ == "__main__":
    main()
