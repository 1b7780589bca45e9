"""Plays the cases of a table: settings are chosen on validation rows of other seeds, then all is played with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.comparison import Compared, Comparison, compare
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.scenario import Scenario
from fleet_sim.tables.case import CLIENTS, FIRST_SEED, STUDENT, TUNING_SEEDS, Case, Ends, Outcome, Plan
from fleet_sim.tables.choice import Choice, chosen


def plan_of(folder: Path, seeds: int, jobs: int, *, is_short: bool) -> Plan:
    """Return how much is played; the short form has two seeds, and one more to choose settings on."""
    if is_short:
        return Plan(folder, (FIRST_SEED, FIRST_SEED + 1), (0,), jobs)
    return Plan(folder, tuple(range(FIRST_SEED, FIRST_SEED + seeds)), TUNING_SEEDS, jobs)


def play(case: Case, plan: Plan) -> Outcome:
    """Choose the settings of a case, and play it with them."""
    ends: Ends = {}
    heard: dict[str, Sequence[RoundMetrics]] = {}
    choices = _choices(case, plan)
    for name, choice in choices.items():
        cells = _compared(case, plan, choice.scenario, (choice.scenario.method.name,)).cells
        heard[name] = [cell.last_round for cell in cells if cell.last_round is not None]
        kinds = (STUDENT, CLIENTS)[2 - len(cells[0].standings) :]  # without a public set there is no student
        for place, kind in enumerate(kinds):
            ends[f"{name}, {kind}"] = [cell.standings[place] for cell in cells]
    if not case.baselines:
        return Outcome(case, ends, choices, {}, heard)
    compared = _compared(case, plan, next(iter(case.federations.values())), case.baselines)
    for cell in compared.cells:
        ends.setdefault(BASELINES[cell.method].title, []).append(cell.standings[0])
    return Outcome(case, ends, choices, compared.chosen, heard)


def _compared(case: Case, plan: Plan, scenario: Scenario, methods: tuple[str, ...]) -> Compared:
    comparison = Comparison(
        case.world,
        scenario,
        methods,
        plan.seeds,
        plan.tuning_seeds,
        case.budget,
        case.settings,
        chosen_by=case.chosen_by,
        grids=case.grids,
    )
    return compare(comparison, plan.folder, jobs=plan.jobs, on_done=lambda text: tell(f"{case.name}: {text}"))


def _choices(case: Case, plan: Plan) -> dict[str, Choice]:
    made: dict[str, Choice] = {}
    for name, scenario in case.federations.items():
        if made and (case.is_tuned_once or name in case.tuned_as):
            made[name] = made[case.tuned_as.get(name, next(iter(made)))].of(scenario)
            continue
        tell(f"{case.name}: choosing settings of {name}")
        made[name] = chosen(
            case.world,
            scenario,
            case.axes_of(name),
            case.budget,
            seeds=plan.tuning_seeds,
            folder=plan.folder,
            jobs=plan.jobs,
            by=case.chosen_by,
            judged=case.judged,
        )
    return made


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
