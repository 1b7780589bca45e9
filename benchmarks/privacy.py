"""What privacy costs, and what a federation gives back: accuracy under record-level DP, together and alone.

    nice -n 19 python benchmarks/privacy.py [--seeds 3] [--rounds 15] [--write]

Digits, 8x8: 4 devices share 797 rows, 600 unlabelled probes, 400 test rows that nobody has; one hidden layer of 64, all
of it trained. `alone` is what a device's own private training reaches for its epsilon, `together` where the same device
stands after the rounds of a federation: the mean device, on all ten classes. Without terms devices train on their rows
in every round; `alone` is then training on own rows for as long as it helps.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
from publish import publish

from broker_server.settings import MethodSettings
from edge_agent.jobs import WarmUpJob
from edge_agent.privacy.limits import noise_multiplier_of
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.private.data import PrivateRows
from edge_agent.round.events import Task, WarmedUp, Work
from fd_protocol.identity import RoundId
from fd_protocol.terms import PrivacyTerms
from fd_runtime.fitting import FitTerms
from fleet_sim.baselines.factory_model import accuracy
from fleet_sim.baselines.local_only import local_only
from fleet_sim.factory import Equipment, equip
from fleet_sim.federation.cores import CorePlan, PursePlan
from fleet_sim.federation.shared_models import SharedModels
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab
from fleet_sim.scenario import PRESETS, ModelTerms, Scenario
from fleet_sim.worlds import World, digits

PAGE = Path(__file__).parent.parent / "docs" / "agent" / "privacy.md"
DEVICES, FAMILY = 4, "mlp-l"
EPSILONS = (2.0, 4.0, 8.0, 1000.0)
SPLITS = {"even (Dirichlet 100)": 100.0, "skewed (Dirichlet 0.5)": 0.5}
TERMS = PrivacyTerms(rows=200)
OWN_ROWS = FitTerms(epochs=160, learning_rate=2e-2)


@dataclass(frozen=True, slots=True)
class Reached:
    """Accuracy of the mean device on the test rows, of each seed."""

    alone: tuple[float, ...]
    together: tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="put the table into docs/agent/privacy.md")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    lines = list(table(asked.seeds, asked.rounds))
    if asked.write:
        command = f"python benchmarks/privacy.py --seeds {asked.seeds} --rounds {asked.rounds} --write"
        publish("privacy", command, "\n".join(lines), PAGE)


def table(seeds: int, rounds: int) -> Iterator[str]:
    """Yield the lines of the table as they are known."""
    yield from said(
        f"delta = {TERMS.delta}, {TERMS.steps} steps at sampling rate {TERMS.sampling_rate}, clip {TERMS.clip_norm}, "
        f"{DEVICES} devices, {rounds} rounds, {seeds} seeds. Accuracy in %, mean and standard deviation of seeds."
    )
    yield from said("")
    yield from said("| rows | epsilon | sigma | alone | together |")
    yield from said("|---|---|---|---|---|")
    for name, alpha in SPLITS.items():
        for epsilon in EPSILONS:
            terms = replace(TERMS, epsilon=epsilon)
            reached = play(alpha, terms, "mean-probabilities", seeds, rounds)
            label = "inf (1000)" if epsilon == 1000 else f"{epsilon:g}"
            yield from said(row(name, label, f"{noise_multiplier_of(terms):.2f}", reached))
        for method in ("mean-probabilities", "competence"):
            reached = play(alpha, PrivacyTerms(), method, seeds, rounds)
            yield from said(row(name, f"no terms, {method}", "-", reached))


def said(line: str) -> Iterator[str]:
    print(line, flush=True)
    yield line


def row(name: str, epsilon: str, sigma: str, reached: Reached) -> str:
    return f"| {name} | {epsilon} | {sigma} | {percent(reached.alone)} | {percent(reached.together)} |"


def percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def play(alpha: float, terms: PrivacyTerms, method: str, seeds: int, rounds: int) -> Reached:
    results = [play_one(alpha, terms, method, seed, rounds) for seed in range(seeds)]
    return Reached(tuple(alone for alone, _ in results), tuple(together for _, together in results))


def play_one(alpha: float, terms: PrivacyTerms, method: str, seed: int, rounds: int) -> tuple[float, float]:
    world = digits(seed, devices=DEVICES, alpha=alpha)
    scenario = replace(
        PRESETS["digits"],
        devices=DEVICES,
        rounds=rounds,
        models=ModelTerms((FAMILY,), FAMILY, private=True),
        method=MethodSettings(method),
        privacy=terms,
    )
    with TemporaryDirectory(prefix="privacy-") as name:
        folder = Path(name)
        equipment = equip(world, scenario.models, seed, folder / "factory")
        for part in ("together", "alone"):
            (folder / part).mkdir()
        last = list(Simulation(scenario, world, equipment, seed, folder=folder / "together").run())[-1]
        alone = mean(alone_of(scenario, world, equipment, folder / "alone", seed))
    return alone, last.clients


def alone_of(scenario: Scenario, world: World, equipment: Equipment, folder: Path, seed: int) -> Iterator[float]:
    """Yield what each device reaches without the others: by its private training, or on its rows."""
    lab, models = Lab(world, equipment.bundles), SharedModels(equipment.public)
    test, factory = lab.rows(FAMILY, world.test), lab.factory_model(FAMILY)
    for number, private in enumerate(world.private):
        if not scenario.privacy.is_asked:
            rng = np.random.default_rng([seed, number])
            yield factory.accuracy(local_only(factory, lab.rows(FAMILY, private), OWN_ROWS, rng), test)
            continue
        name = f"device-{number}"
        purse = PursePlan(folder / f"{name}.privacy", f"{seed} {name}".encode(), PrivacySettings(epsilon_max=1000.0))
        rows = PrivateRows(private.values, private.labels)
        core = models.open(CorePlan(name, equipment.bundles[FAMILY], rows, folder / name, purse))
        work = Work(Task.WARM_UP, RoundId("sim", 0, 1))
        answer = core.handle(WarmUpJob(work, scenario.training, scenario.privacy))
        assert answer.event == WarmedUp(is_private=True)
        yield accuracy(core.logits(test.features), test)


if __name__ == "__main__":
    main()
