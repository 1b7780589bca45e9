"""`fleet-sim attack`: what is left of a federation where some devices lie, rule by rule."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fd_protocol.errors import InvalidValueError
from fd_runtime.pages import Section
from fleet_sim.attacks import ATTACKS
from fleet_sim.attacks.table import SHARES, attackers_of
from fleet_sim.comparison.cells import plain
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.estimates import estimate
from fleet_sim.playing import Job, Played, play_all
from fleet_sim.reports.report import Curve, Report
from fleet_sim.rules import PLAYED, check_has_probes
from fleet_sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """Every rule against every attack, at every share of attackers.

    Attributes:
        scenario: of the federation; the rest of its attack (claims, classes) holds for all.
        attacks, rules: by name.
        shares: of the devices, in 0..1.
        seeds: of each cell.
    """

    scenario: Scenario
    attacks: tuple[str, ...] = ("lma",)
    rules: tuple[str, ...] = PLAYED
    shares: tuple[float, ...] = SHARES
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.attacks if name not in ATTACKS]:
            raise InvalidValueError(f"no attack {unknown[0]!r}; there are {', '.join(ATTACKS)}")
        for name in self.rules:
            check_has_probes(name)
        devices = self.scenario.devices
        if most := [share for share in self.shares if attackers_of(devices, share) >= devices]:
            raise InvalidValueError(f"at a share of {most[0]:g} nobody is honest")

    def cell(self, rule: str, attack: str, share: float) -> Scenario:
        """Return what is played; without attackers, the same whatever the attack would be."""
        count = attackers_of(self.scenario.devices, share)
        terms = replace(self.scenario.attack, devices=count, kind=attack if count else self.attacks[0])
        return replace(self.scenario, method=replace(self.scenario.method, name=rule), attack=terms)

    def cells(self) -> Iterator[tuple[str, str, float]]:
        """Yield rule, attack and share of each."""
        yield from ((r, a, s) for a in self.attacks for r in self.rules for s in self.shares)


@dataclass(frozen=True, slots=True)
class Attacked:
    """A plan that was carried out; `played` are a cell's, one a seed."""

    plan: AttackPlan
    played: dict[tuple[str, str, float], list[Played]]


def play_attacks(plan: AttackPlan, folder: Path, processes: int, console: Console) -> Attacked:
    """Play every cell that `folder` does not hold yet, and show how far they are."""
    scenarios = dict.fromkeys(plan.cell(*place) for place in plan.cells())
    jobs = [Job(scenario, seed, folder) for scenario in scenarios for seed in plan.seeds]
    with Progress(console=console) as progress:
        task = progress.add_task(f"{len(jobs)} federations", total=len(jobs) * plan.scenario.rounds)

        def show(_job: Job, _result: RoundResult) -> None:
            progress.advance(task)

        played = iter(play_all(jobs, processes, show))
        progress.update(task, completed=len(jobs) * plan.scenario.rounds)
    by_scenario = {scenario: [next(played) for _ in plan.seeds] for scenario in scenarios}
    return Attacked(plan, {place: by_scenario[plan.cell(*place)] for place in plan.cells()})


def report(attacked: Attacked, command: str) -> Report:
    """Return the report: a table for each attack, and how each rule stands under the first at the largest share."""
    plan = attacked.plan
    summary = (
        f"{plan.scenario.devices} devices, {plan.scenario.rounds} rounds, {len(plan.seeds)} seeds.",
        "Accuracy on test of the honest devices' models, %: mean ± 2 standard errors over seeds.",
    )
    hardest = max(plan.shares)
    curves = tuple(
        Curve(f"{rule}, {hardest:.0%} {plan.attacks[0]}", _curve(attacked.played[rule, plan.attacks[0], hardest]))
        for rule in plan.rules
    )
    return Report("fleet-sim attack", summary, curves, tuple(_table(attacked, name) for name in plan.attacks), command)


def to_csv(attacked: Attacked) -> str:
    """Return a row for each cell and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rule", "attack", "share", "attackers", "seed", "clients", "student"))
    for (rule, attack, share), played in attacked.played.items():
        count = attackers_of(attacked.plan.scenario.devices, share)
        writer.writerows((rule, attack, share, count, p.seed, p.last.clients, p.last.student) for p in played)
    return text.getvalue()


def to_json(attacked: Attacked) -> str:
    """Return every round of every cell as one JSON document."""
    cells = [
        {"rule": rule, "attack": attack, "share": share, "played": [asdict(one) for one in played]}
        for (rule, attack, share), played in attacked.played.items()
    ]
    return json.dumps(plain({"scenario": asdict(attacked.plan.scenario), "cells": cells}))


def _table(attacked: Attacked, attack: str) -> Section:
    plan = attacked.plan
    counts = [attackers_of(plan.scenario.devices, share) for share in plan.shares]
    columns = ("rule", *(f"{share:.0%} ({count})" for share, count in zip(plan.shares, counts, strict=True)))
    rows = tuple(
        (rule, *(_accuracy(attacked.played[rule, attack, share]) for share in plan.shares)) for rule in plan.rules
    )
    known = ATTACKS[attack]
    return Section(f"{attack}: {known.summary}", columns, rows, f"An attacker knows {known.threat_model}.")


def _accuracy(played: Sequence[Played]) -> str:
    return estimate([one.last.clients for one in played]).in_percent()


def _curve(played: Sequence[Played]) -> tuple[float, ...]:
    rounds = zip(*(one.rounds for one in played), strict=False)
    return tuple(sum(result.clients for result in each) / len(each) for each in rounds)
