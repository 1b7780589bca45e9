"""In which space do people go on with the same word? Asked of other people's sentences, in four spaces.

    python space.py [--write]

A device says where it is competent by where its rows lie. That helps as far as what comes next is the same where what
stands before lies near, be it another person's: for each word of a person, the nearest place in all others' texts, in
the 20 widest axes of 600 probes. `pca-of-tokens` is the space that a public set has
(`fd_protocol.public_set.SpaceKind`); the others are what it could have.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_protocol.public_set import SpaceKind
from fd_runtime.config import load_toml
from fd_runtime.models.model import F32, I32
from fd_runtime.space import vectors
from fleet_sim.data import Dataset
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.neighbours import neighbour_agreement, of_each
from fleet_sim.scenario import Scenario
from fleet_sim.tables import publish, table_of
from model_export.public_set import DIMENSIONS, principal_axes

HERE = Path(__file__).parent
PROBES, OF_EACH, SEEDS = 600, 20, 5


def bag(samples: I32, *, size: int, last: int | None = None, nothing: int | None = None) -> F32:
    """Return the roots of the frequencies of the `last` tokens, but for the one that says `nothing`."""
    found = vectors(samples[:, -last:] if last else samples, SpaceKind.PCA_OF_TOKENS, size)
    if nothing is not None:
        found[:, nothing] = 0
    return found


def at_random(samples: I32) -> F32:
    return np.random.default_rng(0).random((len(samples), DIMENSIONS), np.float32)


def spaces(size: int, nothing: int) -> Mapping[str, Callable[[I32], F32]]:
    of_tokens = partial(bag, size=size)
    return {
        "all eight tokens (`pca-of-tokens`, what is built)": of_tokens,
        "the words among them": partial(of_tokens, nothing=nothing),
        "the last two tokens": partial(of_tokens, last=2),
        "the last token": partial(of_tokens, last=1),
        "none: a random place": at_random,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="space.py")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    dataset = load_toml(HERE / "fleet.toml", Scenario).data.load()
    words = len(dataset.task.classes)
    rows = [[name, agreed(dataset, of)] for name, of in spaces(words + 2, words).items()]
    text = table_of(["the nearest place in another person's text goes on with the same word", "%"], rows)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish("table: spaces", "python examples/keyboard/space.py --write", text, HERE / "README.md")


def agreed(dataset: Dataset, of: Callable[[I32], F32]) -> str:
    return estimate([share_of(dataset, of, np.random.default_rng(seed)) for seed in range(SEEDS)]).in_percent()


def share_of(dataset: Dataset, of: Callable[[I32], F32], rng: np.random.Generator) -> float:
    """Return the share of one draw. Where most vectors have a twin there is no unit of distance, but there are axes."""
    rows = of_each(dataset.groups, OF_EACH, rng)
    flat = of(dataset.samples[rows])
    _, _, axes = principal_axes(rng.permutation(flat)[:PROBES], DIMENSIONS)
    return float(neighbour_agreement(flat @ axes.T, dataset.labels[rows], dataset.groups[rows])[0])


if __name__ == "__main__":
    main()
