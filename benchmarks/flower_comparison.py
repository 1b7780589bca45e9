"""Flower and fedistill side by side: the same CNN, images, clients and machine, real processes, TLS, the same gauges.

    python benchmarks/flower_comparison.py --tune --write       FedAvg's learning rate and epochs, on validation images
    python benchmarks/flower_comparison.py --write              the table; half an hour of a quiet machine
    python benchmarks/flower_comparison.py --short              two clients, two rounds, seconds of idling

It makes virtual environments in build/: the newest flwr with torch, and what a device of ours installs. What a phase
has found is kept in --folder and not measured again. docs/flower.md says what the figures mean.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import json
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flower import environment
from flower.lines import OUR_COMMANDS, THEIR_COMMANDS, lines_of
from flower.measured import Alone, Played, Recovery, revived
from flower.ours import Ours
from flower.rows import Phase, alone_rows, firsts, floor, recovery_rows, updates
from flower.tables import Row, curves, table
from flower.theirs import APP, LIGHT, Theirs
from publish import publish

from fd_runtime.artifacts import load_bundle
from fd_runtime.fitting import FitTerms
from fleet_sim.baselines.fedavg import fedavg
from fleet_sim.baselines.standings import Bench
from fleet_sim.baselines.tuning import best, grid
from fleet_sim.factory import build_bundles
from fleet_sim.lab import Lab
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS, Scenario
from fleet_sim.worlds import World, new_class

SEED, TUNING_SEEDS = 100, (0, 1)
FAMILY = "cnn-m"
TERMS = FitTerms(epochs=5, learning_rate=0.003)
"""Of a client of FedAvg: what `--tune` found."""
TUNED_ROUNDS = 10
SHIPPED, EVERY_LAYER = "as shipped: int8 backbone, the tail trains", "every layer trains"
APPS = Path(__file__).parent / "flower"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a comparison is."""

    clients: int
    rounds: int
    longer: int
    alone_rounds: int
    floor_rounds: int
    recovery_rounds: int
    idle_minutes: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """FedAvg in one process: accuracy on test after each round."""

    curve: tuple[float, ...]


WHOLE = Size(5, 10, 15, 3, 10, 6, 5.0)
SHORT = Size(2, 2, 3, 2, 2, 4, 0.1)


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--found", action="store_true", help="measure nothing, print what was found so far")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, help="of what was found; build/flower or build/flower-short")
    parser.add_argument("--environment", type=Path, default=environment.BUILD / "flower-venv")
    parser.add_argument("--torch-index", help="a package index that has torch without CUDA")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it has started is ended
    command = "python benchmarks/flower_comparison.py"
    if asked.tune:
        section, command, body = "flower, settings of FedAvg", f"{command} --tune", "\n".join(tune())
    else:
        folder = asked.folder or environment.BUILD / ("flower-short" if asked.short else "flower")
        size = SHORT if asked.short else WHOLE
        venv = environment.environment(asked.environment, *environment.FLOWER, index=asked.torch_index)
        section, body = (
            "flower",
            "\n".join(Comparison(size, folder.resolve(), venv.resolve(), measures=not asked.found).told()),
        )
    print(body)
    if asked.write:
        publish(section, f"{command} --write", body)


def scenario_of(size: Size) -> Scenario:
    """The demo's, but every device has the same CNN, since FedAvg knows no other case."""
    scenario = PRESETS["new-class"]
    models = replace(scenario.models, families=(FAMILY,), student=FAMILY)
    return replace(scenario, devices=size.clients, rounds=size.rounds, models=models)


def bench_of(world: World, scenario: Scenario, seed: int, folder: Path) -> Bench:
    """Return the CNN all of whose layers train, at the factory's weights."""
    models = replace(scenario.models, every_layer_trains=True)
    if folder.exists():
        bundles = {FAMILY: load_bundle(folder / FAMILY)}
    else:
        bundles = build_bundles(world, models, seed, folder, tflite=False)
    return Bench(Lab(world, bundles), FAMILY, scenario.rounds, seed)


class Comparison:
    """Phase by phase; what is known is not measured again."""

    def __init__(self, size: Size, folder: Path, venv: Path, *, measures: bool) -> None:
        self._size, self._folder, self._venv, self._measures = size, folder, venv, measures
        scenario = scenario_of(size)
        world = new_class(SEED, devices=size.clients, canaries=0)
        self._work = folder / ("work" if measures else "look")
        if measures:
            shutil.rmtree(self._work, ignore_errors=True)
        bench = bench_of(world, scenario, SEED, self._work / "factory")
        self._theirs = Theirs(venv, bench, TERMS, self._work / "theirs")
        self._ours = Ours(scenario, world, SEED, self._work / "ours")
        self._world, self._scenario = world, scenario
        self._settings = folder / "settings"
        self._loads: list[float] = []

    def told(self) -> Iterator[str]:
        """Yield the lines of the report."""
        size = self._size
        wholly = replace(self._scenario, models=replace(self._scenario.models, every_layer_trains=True))
        wholly = replace(wholly, training=replace(wholly.training, epochs=4), student=replace(wholly.student, epochs=4))
        plays = [
            self._phase("Flower, play", Played, partial(self._theirs.play, APP, size.rounds)),
            self._phase("ours, play", Played, self._play_as_shipped),
            self._phase("ours, play every layer", Played, partial(self._ours.play, "every-layer", wholly)),
        ]
        floors = [
            self._phase("Flower, floor", Played, partial(self._theirs.play_floor, size.floor_rounds)),
            self._phase("ours, floor", Played, partial(self._ours.play_floor, size.floor_rounds)),
        ]
        alone = [
            self._phase("Flower, alone", Alone, partial(self._theirs.alone, APP, size.alone_rounds, size.idle_minutes)),
            self._phase("ours, alone", Alone, partial(self._ours.alone, size.alone_rounds, size.idle_minutes)),
        ]
        recoveries = [
            self._phase("Flower, recovery", Recovery, partial(self._theirs.recover, size.recovery_rounds)),
            self._phase("ours, recovery", Recovery, partial(self._ours.recover, size.recovery_rounds)),
        ]
        longer = partial(self._ours.play, "longer", replace(self._scenario, rounds=size.longer))
        longer_play = self._phase("ours, longer", Played, longer)
        light = partial(self._theirs.alone, LIGHT, size.alone_rounds, size.idle_minutes)
        alone.insert(1, self._phase("Flower, alone light", Alone, light))
        parts = {
            "One update: a client, a round, after the first; idling taken off": updates(plays, alone),
            "A client's first round, from its start": firsts(plays, alone),
            "The framework's floor: one client, a message that does nothing; idling taken off": floor(
                floors, [alone[0], alone[-1]]
            ),
            "One client alone": alone_rows(alone),
            "The server is killed inside a round": recovery_rows(recoveries),
            "What a user writes and installs": self._user_rows(),
        }
        flower = f"Flower {environment.version(self._venv, 'flwr')}"
        systems = [flower, f"{flower}, clients without PyTorch", *(f"fedistill, {n}" for n in (SHIPPED, EVERY_LAYER))]
        yield from self._setting()
        yield ""
        yield from self._accuracies(plays, longer_play)
        yield ""
        yield from table(systems, parts)

    def _play_as_shipped(self) -> Played:
        """And keep what a user would have written for it."""
        played = self._ours.play("shipped", self._scenario)
        self._settings.mkdir(parents=True, exist_ok=True)
        for name in ("federation.toml", "agents/device-0.toml"):
            shutil.copy(self._work / "ours" / "shipped" / name, self._settings)
        return played

    def _setting(self) -> Iterator[str]:
        rows = ", ".join(str(len(part)) for part in self._world.private)
        torch = environment.version(self._venv, "torch")
        yield (
            f"{self._size.clients} clients with {rows} images of MNIST (Dirichlet 0.1, seed {SEED}; three digits are "
            f"on clients alone), {len(self._world.test)} test images, {self._size.rounds} rounds. FedAvg in PyTorch "
            f"{torch}: {TERMS.epochs} epochs, batches of {TERMS.batch_rows}, learning rate {TERMS.learning_rate:g}, "
            "momentum 0.9."
        )
        yield (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; load of the machine "
            f"{min(self._loads):.1f} to {max(self._loads):.1f}, both sides' own work in it: processor time is sound, "
            "seconds of the wall are not."
        )

    def _accuracies(self, plays: Sequence[Phase], longer: Phase) -> Iterator[str]:
        theirs, ours, wholly = plays
        accuracies: dict[str, Sequence[float]] = {}
        if theirs:
            accuracies["Flower, FedAvg"] = theirs.curve
        simulated = self._phase("FedAvg, simulated", Simulated, partial(self._simulated, self._size.longer))
        if simulated:
            accuracies["the same FedAvg in one process (`fleet_sim.baselines`)"] = simulated.curve
        for name, play in ((SHIPPED, longer or ours), (EVERY_LAYER, wholly)):
            if play:
                accuracies[f"fedistill, {name}: student"] = play.curve
                accuracies[f"fedistill, {name}: mean client"] = play.clients_curve
        last = self._size.longer
        yield from curves(sorted({number for number in (1, 2, 3, 5, 10) if number < last} | {last}), accuracies)

    def _simulated(self, rounds: int) -> Simulated:
        """Return what FedAvg comes to without Flower: an app that learnt less would be our fault."""
        bench = self._theirs.bench
        played = fedavg(bench.factory, bench.private, TERMS, bench.rng)
        return Simulated(tuple(bench.accuracy(next(played).theta) for _ in range(rounds)))

    def _user_rows(self) -> list[Row]:
        apps = [APPS / "app", APPS / "light"]
        python = [lines_of(sorted(app.glob("*/*.py"))) for app in apps]
        theirs = [lines_of([app / "pyproject.toml"]) + lines for app, lines in zip(apps, python, strict=True)]
        ours = lines_of([APPS / "recipe.toml", *sorted(self._settings.glob("*.toml"))])
        agent = environment.environment(environment.BUILD / "agent-venv", f"{environment.PROJECT}[agent]")
        size, torch = environment.installed_mb, {"torch": False, "onnxruntime": False}
        sizes = [size(self._venv, onnxruntime=False), size(self._venv, torch=False), size(agent), None]
        return [
            Row("lines", [*theirs, ours, ours]),
            Row("of them Python", [*python, 0, 0]),
            Row("kinds of commands", [len(THEIR_COMMANDS)] * 2 + [len(OUR_COMMANDS)] * 2),
            Row("a client's packages, MB", sizes),
            Row("of them flwr and what it brings, MB", [size(self._venv, **torch)] * 2 + [None, None]),
        ]

    def _phase(self, name: str, kind: type, measure: Callable[[], Any]) -> Phase:
        path = self._folder / f"{name.replace(', ', '-').replace(' ', '-').lower()}.json"
        if not path.exists():
            if not self._measures:
                return None
            begin_s, before = time.monotonic(), os.getloadavg()[0]
            found = measure()
            loads = [before, os.getloadavg()[0]]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"loads": loads, "found": asdict(found)}, indent=1))
            print(f"{name}: {time.monotonic() - begin_s:.0f} s", file=sys.stderr, flush=True)
        kept = json.loads(path.read_text())
        self._loads += kept["loads"]
        return revived(kind, kept["found"])


def tune() -> Iterator[str]:
    """Yield the score of every pair of the grid, mean of two other seeds' validation images, and the best."""
    scenario = replace(scenario_of(WHOLE), rounds=TUNED_ROUNDS)
    benches = []
    for seed in TUNING_SEEDS:
        world = new_class(seed, devices=WHOLE.clients, canaries=0)
        folder = environment.BUILD / "flower-tuning" / str(seed)
        shutil.rmtree(folder, ignore_errors=True)
        benches.append(bench_of(replace(world, test=world.validation), scenario, seed, folder))

    scores: dict[tuple[float, int], float] = {}

    def score(terms: FitTerms) -> float:
        ends = []
        for bench in benches:
            rounds = fedavg(bench.factory, bench.private, terms, bench.rng)
            ends.append(bench.accuracy([next(rounds) for _ in range(bench.rounds)][-1].theta))
        scores[terms.learning_rate, terms.epochs] = float(np.mean(ends))
        return scores[terms.learning_rate, terms.epochs]

    epochs, rates = (2, 5, 10), (0.001, 0.003, 0.01, 0.03)
    chosen = best(grid(rates, epochs), score)
    yield (
        f"Accuracy on validation images, %, mean of seeds {' and '.join(map(str, TUNING_SEEDS))}; {WHOLE.clients} "
        f"clients, {TUNED_ROUNDS} rounds, in one process by `fleet_sim.baselines.fedavg`: the same algorithm."
    )
    yield ""
    yield f"| learning rate | {' | '.join(f'{e} epochs' for e in epochs)} |"
    yield f"|---|{'---|' * len(epochs)}"
    for rate in rates:
        yield f"| {rate:g} | {' | '.join(f'{100 * scores[rate, e]:.1f}' for e in epochs)} |"
    yield ""
    yield f"Best: learning rate {chosen.learning_rate:g}, {chosen.epochs} epochs."


if __name__ == "__main__":
    main()
