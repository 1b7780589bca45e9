"""What a competence map is worth before anything has been learnt: the weight that it gives to those who know a probe.

    python -m benchmarks.tables.maps [--data mnist=PATH] [--seeds 3] [--short] [--write]

For each probe, the share of the weights w = min(1, exp(-b (d - d_(m)))) of all devices that is of devices which hold
its class (at least 2 % of their rows). It bounds what a first consensus can know where nobody has learnt anything but
its own classes, and shows what two bits, their edges, and few clusters cost. A minute; nothing is trained.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.publish import publish
from benchmarks.tables.worlds import data, thinned
from broker_server.rules import RuleTerms
from edge_agent.learning import clustering
from fd_protocol.competence import DECODED, EDGES
from fd_protocol.errors import InvalidValueError
from fd_runtime.command_line import Parser, run_program
from fd_runtime.models.model import F32
from fd_runtime.space import preprocessed
from fleet_sim.comparison.comparing import MakeWorld
from fleet_sim.data.terms import DataTerms
from fleet_sim.metrics.estimates import estimate
from fleet_sim.partitions import Classes, PartitionTerms
from fleet_sim.scenario import Scenario
from fleet_sim.tables import table_of
from fleet_sim.worlds import Cut, World
from model_export.public_set import DIMENSIONS, principal_space

ROWS, FIRST_SEED = 600, 100
KNOWS = 0.02
"""A device with fewer rows of a class, by share, does not count as one that holds it."""
CLUSTERS = (clustering.MAX_CLUSTERS, 32)
NARROW = (1.1, 1.5, 1.9)
FINE = tuple(np.linspace(0.5, 3.0, 15).tolist())
NOWHERE = np.float32(10.0)
"""In place of infinity, for devices that have too few rows for a map."""
SHARPNESS = RuleTerms().sharpness


@dataclass(frozen=True)
class Setting:
    """A fleet, and the rank m of the clip that its rule has."""

    world: MakeWorld
    clip_rank: int


def settings(paths: Mapping[str, Path], *, is_short: bool) -> Mapping[str, Setting]:
    few = Scenario(data=DataTerms("digits"), cut=Cut(probes=200, test=200))
    if is_short:
        return {"digits, Dirichlet 0.1, m = 2": Setting(thinned(few), 2)}
    mnist = Scenario(data=data("mnist", paths), cut=Cut(probes=6000, validation=1000, test=0))
    one = replace(mnist, partition=PartitionTerms(classes=Classes(per_device=1)))
    skewed = replace(mnist, cut=replace(mnist.cut, probes=1000), devices=20)
    return {
        "a class each, 6000 probes, m = 1": Setting(thinned(one, rows=ROWS), 1),
        "Dirichlet 0.1, 1000 probes, m = 1": Setting(thinned(skewed, rows=ROWS), 1),
        "Dirichlet 0.1, 1000 probes, m = 2": Setting(thinned(skewed, rows=ROWS), 2),
    }


def codings() -> Mapping[str, Callable[[F32], F32]]:
    """Return what becomes of distances on the way, by how they are told."""
    return {
        "exact": lambda distances: distances,
        f"2 bits, edges {_words(EDGES)}: as shipped": partial(_told, np.array(EDGES), np.array(DECODED)),
        f"2 bits, edges {_words(NARROW)}": partial(_told, np.array(NARROW), _middles(NARROW)),
        "4 bits": partial(_told, np.array(FINE), _middles(FINE)),
    }


def main() -> int:
    parser = Parser(prog="python -m benchmarks.tables.maps")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="digits alone")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.set_defaults(run=_run)
    return run_program(parser)


def _run(asked: argparse.Namespace) -> int:
    if asked.write and asked.short:
        raise InvalidValueError("only a whole table is written")
    paths = {name: Path(path) for name, _, path in (item.partition("=") for item in asked.data)}
    seeds = range(FIRST_SEED, FIRST_SEED + asked.seeds)
    text = report(settings(paths, is_short=asked.short), seeds)
    print(text)
    if asked.write:
        publish("table: maps", f"python -m benchmarks.tables.maps --seeds {asked.seeds} --write", text)
    return 0


def report(fleets: Mapping[str, Setting], seeds: Sequence[int]) -> str:
    found = {name: [shares(fleet.world(seed), fleet.clip_rank) for seed in seeds] for name, fleet in fleets.items()}
    first = next(iter(found.values()))
    rows = [
        [str(clusters), told, *(estimate([each[clusters, told] for each in of]).in_percent() for of in found.values())]
        for clusters, told in first[0]
    ]
    note = (
        "A cell is the share, in %, of the weight on a probe that goes to those who hold its class (at least "
        f"{KNOWS:.0%} of their rows), before anything has been learnt. {len(seeds)} seeds, MNIST, at most {ROWS} rows "
        f"a device, b = {SHARPNESS:g}; ± are two standard errors."
    )
    return f"{note}\n\n{table_of(['clusters, at most', 'distances', *found], rows)}"


def shares(world: World, clip_rank: int) -> dict[tuple[int, str], float]:
    """Return the share of weight that goes to holders of the right class, by clusters and by how distances are told."""
    probes = preprocessed(world.probes.values, world.task)
    space = principal_space(probes.reshape(len(probes), -1).astype(np.float32), DIMENSIONS)
    points = space.locate(probes)
    located = [space.locate(preprocessed(part.values, world.task)) for part in world.private]
    holds = np.stack([_shares_of_classes(part.labels, len(world.task.classes)) >= KNOWS for part in world.private])
    is_known = holds[:, world.probes.labels]
    found = {}
    for clusters in CLUSTERS:
        distances = np.stack([clustering.nearest_distances(points, _centroids(rows, clusters)) for rows in located])
        distances = np.minimum(distances, NOWHERE)
        for told, code in codings().items():
            weights = weights_of(code(distances), clip_rank)
            found[clusters, told] = float(((weights * is_known).sum(axis=0) / weights.sum(axis=0)).mean())
    return found


def weights_of(distances: F32, clip_rank: int) -> F32:
    """Return w of the rule `competence`, all devices trusted alike, [devices, probes]."""
    clip = np.sort(distances, axis=0)[min(clip_rank, len(distances)) - 1]
    return np.exp(-SHARPNESS * np.maximum(distances - clip, 0.0))


def _centroids(rows: F32, clusters: int) -> F32:
    before = clustering.MAX_CLUSTERS
    clustering.MAX_CLUSTERS = clusters
    try:
        return clustering.centroids_of(rows)
    finally:
        clustering.MAX_CLUSTERS = before


def _told(edges: F32, decoded: F32, distances: F32) -> F32:
    return decoded[np.searchsorted(edges, distances, side="right")]


def _middles(edges: Sequence[float]) -> F32:
    step = edges[1] - edges[0]
    return np.array([edges[0] - step / 2, *(edge + step / 2 for edge in edges)])


def _shares_of_classes(labels: np.ndarray, classes: int) -> F32:
    return np.bincount(labels, minlength=classes) / max(1, len(labels))


def _words(edges: Sequence[float]) -> str:
    return ", ".join(f"{edge:g}" for edge in edges)


if __name__ == "__main__":
    sys.exit(main())
