"""A worker that is given samples without end, to be killed (`tests.faults.warm`)."""

from __future__ import annotations

import random
from pathlib import Path

from edge_agent.private.settings import GuessSettings, StoreSettings
from edge_agent.private.store import PrivateStore
from fd_runtime.artifacts import load_bundle
from tests.edge_agent.private.noise import NOW_MS, sample


def settings(key_file: str | None) -> StoreSettings:
    key = Path(key_file) if key_file else None
    return StoreSettings(
        megabytes=8, rows=150, questions=10, awaiting=20, guesses=GuessSettings(0.9), key_file=key
    )  # a few hundred samples and every pool is full


def work(bundle: str, path: str, life: int, key_file: str | None, ready: str) -> None:
    """Add samples to the store at `path`, and make the file `ready` before the first."""
    store = PrivateStore.open(Path(path), settings(key_file), load_bundle(Path(bundle)).manifest)
    rng, number = random.Random(life), life * 100_000
    Path(ready).touch()
    while True:
        number += 1
        kind = rng.randrange(4)
        store.add(
            sample(number),
            sample_id=f"id-{number}",
            label=number % 3 if kind == 0 else None,
            confidence=(None, 0.4, 0.95, 0.6)[kind],
            guess=number % 3,
            at_ms=NOW_MS + number,
            source="s",
        )
        if kind == 3:
            for one in store.uncertain(2):
                store.label(one.sample_id, 1, by="owner")
