"""The demo federation over fresh seeds, through the real cores: competence FD against every baseline, and attacked.

    python benchmarks/demo_federation.py --tune              choose the baselines' settings on validation data
    python benchmarks/demo_federation.py --seeds 10          the tables; --write puts them into docs/benchmarks.md

Mean and standard error over seeds, differences paired by seed. Test data are looked at once, at the end. Two seeds at a
time; a finished seed is kept in --cache and not played again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import numpy as np
from publish import publish

from fd_runtime.fitting import FitTerms
from fleet_sim.baselines import standings
from fleet_sim.baselines.fedavg import fedavg
from fleet_sim.baselines.server_only import SemiSupervision
from fleet_sim.baselines.standings import NEW_CLASS_TERMS, Bench, Standing
from fleet_sim.baselines.tuning import best, grid
from fleet_sim.factory import build_bundles, equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.pool import pool
from fleet_sim.scenario import PRESETS, AttackTerms, Scenario
from fleet_sim.worlds import World, new_class

SCENARIO = PRESETS["new-class"]
FAMILY = SCENARIO.models.student
TUNING_SEEDS = (0, 1, 2, 3)
FIRST_FRESH_SEED = 100
COMPETENCE = "competence FD, student"
CLIENTS = "competence FD, mean client"
FLOAT = "competence FD, float, mean client"
RIVALS = (
    "FedAvg, tail, f32",
    "FedAvg, whole model, f32",
    "server only",
    "server only + 200 canary labels",
    "centralised",
    "FD by the mean, mean client",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--cache", type=Path, default=Path("out/demo-federation"))
    parser.add_argument("--logits", type=Path, help="write the last two rounds' logits, for benchmarks/payload.py")
    arguments = parser.parse_args()
    if arguments.logits:
        np.savez(arguments.logits, demo=last_logits(FIRST_FRESH_SEED))
        return
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with pool(arguments.jobs) as mapped:
        if arguments.tune:
            list(mapped(tune, ("local", "tail", "whole", "centralised")))
            return
        seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + arguments.seeds)
        rows = list(mapped(partial(play_once, cache=arguments.cache), seeds))
    body = "\n".join(tables(rows))
    print(body)
    if arguments.write:
        publish("demo federation", f"python benchmarks/demo_federation.py --seeds {arguments.seeds} --write", body)


# One seed.


def play_once(seed: int, cache: Path) -> dict[str, dict[str, float]]:
    """Return {method: {"all": , "own": , "up": , "down": }} of a seed, from the cache if it is there."""
    path = cache / f"{seed}.json"
    if not path.exists():
        begin_s = monotonic()
        with TemporaryDirectory() as folder:
            rows = play(new_class(seed), seed, Path(folder))
        path.write_text(json.dumps(rows))
        print(f"seed {seed}: {monotonic() - begin_s:.0f} s", flush=True)
    return dict(json.loads(path.read_text()))


def play(world: World, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for standing in baselines(world, seed, folder / "baselines"):
        rows[standing.name] = {
            "all": standing.final,
            "own": standing.own,
            "up": standing.up_bytes,
            "down": standing.down_bytes,
        }
    equipment = equip(world, SCENARIO.models, seed, folder / "int8")
    lab = Lab(world, equipment.bundles)
    for name, scenario in federations().items():
        rows |= federation(name, Simulation(scenario, world, equipment, seed, lab=lab))
    models = replace(SCENARIO.models, int8=False)
    floating = equip(world, models, seed, folder / "float")
    rows |= federation("competence FD, float", Simulation(replace(SCENARIO, models=models), world, floating, seed))
    return rows


def federations() -> dict[str, Scenario]:
    """Every federation by name; `m` is the rank of the clip, 1 = none."""
    method = SCENARIO.method
    unclipped = replace(method, terms=replace(method.terms, clip_rank=1))
    liar = AttackTerms(devices=1, kind="lma")
    return {
        "competence FD": SCENARIO,
        "FD by the mean": replace(SCENARIO, method=replace(method, name="mean-probabilities")),
        "canaries": replace(SCENARIO, canaries=True),
        "attacked, no clip, no canaries": replace(SCENARIO, method=unclipped, attack=liar),
        "attacked, clip, no canaries": replace(SCENARIO, attack=liar),
        "attacked, clip, canaries": replace(SCENARIO, attack=liar, canaries=True),
    }


def federation(name: str, simulation: Simulation) -> dict[str, dict[str, float]]:
    results = list(simulation.run())
    last, rounds = results[-1], len(results)
    traffic = {"up": last.sent_bytes / rounds, "down": last.received_bytes / rounds}
    return {
        f"{name}, student": {"all": last.student, "own": float("nan"), **traffic},
        f"{name}, mean client": {"all": last.clients, "own": last.own, **traffic},
    }


def baselines(world: World, seed: int, folder: Path) -> Iterator[Standing]:
    terms = NEW_CLASS_TERMS
    tail, whole = benches(world, seed, folder)
    yield standings.play_factory(tail)
    yield standings.play_local_only(tail, terms.local_only)
    yield standings.play_centralised(tail, terms.centralised)
    known = world.probes.take(world.canaries)
    for name, labelled in (("server only", world.factory), ("server only + 200 canary labels", world.factory + known)):
        yield standings.play_server_only(whole, name, labelled, SemiSupervision())
    for codec in ("f32", "int8", "int4"):
        yield from standings.play_fedavg(tail, "FedAvg, tail", terms.tail_average, terms.fine_tuning, codec)
    yield from standings.play_fedavg(whole, "FedAvg, whole model", terms.whole_average, terms.fine_tuning, "f32")


def benches(world: World, seed: int, folder: Path) -> tuple[Bench, Bench]:
    """Return the student's family with a frozen int8 backbone, and with every layer trainable."""
    models = replace(SCENARIO.models, families=(FAMILY,))
    whole = replace(models, every_layer_trains=True)
    return (
        Bench(
            Lab(world, build_bundles(world, models, seed, folder / "tail", tflite=False)), FAMILY, SCENARIO.rounds, seed
        ),
        Bench(
            Lab(world, build_bundles(world, whole, seed, folder / "whole", tflite=False)), FAMILY, SCENARIO.rounds, seed
        ),
    )


# Tuning, on validation data of other seeds.


def tune(what: str) -> None:
    """Print the score of every pair of the grid and the best one."""
    with TemporaryDirectory() as folder:
        pairs = [benches(validated(new_class(seed)), seed, Path(folder) / str(seed)) for seed in TUNING_SEEDS]
        candidates, score = tasks(pairs)[what]

        def scored(terms: FitTerms) -> float:
            value = float(np.mean([score(terms, pair) for pair in range(len(pairs))]))
            print(f"{what:12} lr {terms.learning_rate:<7g} epochs {terms.epochs:<4} {100 * value:5.1f}", flush=True)
            return value

        chosen = best(candidates, scored)
        print(f"{what:12} best: learning_rate={chosen.learning_rate:g}, epochs={chosen.epochs}", flush=True)


def last_logits(seed: int) -> np.ndarray:
    """Return what the devices say of the probes after the last two rounds, float32 [2, devices, probes, classes]."""
    world = new_class(seed)
    with TemporaryDirectory() as folder:
        equipment = equip(world, SCENARIO.models, seed, Path(folder))
        lab = Lab(world, equipment.bundles)
        simulation = Simulation(SCENARIO, world, equipment, seed, lab=lab)
        said = [
            [
                device.core.logits(lab.rows(device.profile.family, equipment.public_probes).features)
                for device in devices
            ]
            for devices in (simulation.devices for result in simulation.run() if result.number > SCENARIO.rounds - 2)
        ]
    return np.array(said)


def validated(world: World) -> World:
    """The same world, its validation rows in the place of the test rows."""
    return replace(world, test=world.validation)


def tasks(pairs: list[tuple[Bench, Bench]]) -> dict[str, tuple[list[FitTerms], Callable[[FitTerms, int], float]]]:
    def averaged(bench: Bench, terms: FitTerms) -> float:
        rounds = fedavg(bench.factory, bench.private, terms, bench.rng)
        return bench.accuracy([next(rounds) for _ in range(bench.rounds)][-1].theta)

    return {
        "local": (
            grid((5e-4, 1e-3, 2e-3, 5e-3), (10, 20, 40, 80)),
            lambda terms, pair: standings.play_local_only(pairs[pair][0], terms).own,
        ),
        "tail": (grid((3e-4, 1e-3, 3e-3, 1e-2), (10, 20, 40, 80)), lambda terms, pair: averaged(pairs[pair][0], terms)),
        "whole": (grid((2e-3, 5e-3, 1e-2, 3e-2), (2, 5, 10)), lambda terms, pair: averaged(pairs[pair][1], terms)),
        "centralised": (
            grid((1e-3, 2e-3, 5e-3), (40, 80, 160)),
            lambda terms, pair: standings.play_centralised(pairs[pair][0], terms).final,
        ),
    }


# The tables.


def tables(seeds: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    """Yield the lines of both tables."""
    yield f"| {len(seeds)} seeds, %, mean ± 2 standard errors | all digits | own digits | B up | B down |"
    yield "|---|---|---|---|---|"
    for name in seeds[0]:
        cells = [spread(seeds, name, kind) for kind in ("all", "own")]
        traffic = [f"{np.mean([seed[name][way] for seed in seeds]):,.0f}" for way in ("up", "down")]
        yield f"| {name} | {' | '.join([*cells, *traffic])} |"
    yield ""
    yield "| paired difference, points | mean ± 2 standard errors |"
    yield "|---|---|"
    for ours in (COMPETENCE, CLIENTS):
        for theirs in RIVALS:
            yield f"| {ours} - {theirs} | {difference(seeds, ours, theirs, 'all')} |"
    yield f"| {CLIENTS} - local only, own digits | {difference(seeds, CLIENTS, 'local only', 'own')} |"
    yield f"| {CLIENTS}, int8 - float backbone | {difference(seeds, CLIENTS, FLOAT, 'all')} |"
    for end in ("student", "mean client"):
        for attacked in (name for name in federations() if name.startswith("attacked")):
            change = difference(seeds, f"{attacked}, {end}", f"competence FD, {end}", "all")
            yield f"| {attacked}, {end} - nobody attacks | {change} |"


def spread(seeds: list[dict[str, dict[str, float]]], name: str, kind: str) -> str:
    return estimate([seed[name][kind] for seed in seeds]).in_percent()


def difference(seeds: list[dict[str, dict[str, float]]], ours: str, theirs: str, kind: str) -> str:
    return paired(*([seed[name][kind] for seed in seeds] for name in (ours, theirs))).in_percent(signed=True)


if __name__ == "__main__":
    main()
