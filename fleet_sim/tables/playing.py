"""Plays the cases of a table: settings are chosen on validation rows of other seeds, then all is played with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fd_protocol.errors import InvalidValueError
from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.comparison.comparing import Compared, Comparison, compare_all
from fleet_sim.factory import public_set_bytes
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.scenario import Scenario
from fleet_sim.tables.case import CLIENTS, FIRST_SEED, STUDENT, TUNING_SEEDS, Case, Ends, Outcome, Plan
from fleet_sim.tables.choice import Choice, chosen


def plan_of(folder: Path, seeds: int, jobs: int, *, is_short: bool) -> Plan:
    """Return how much is played; the short form has two seeds, and one more to choose settings on."""
    if is_short:
        return Plan(folder, (FIRST_SEED, FIRST_SEED + 1), (0,), jobs)
    return Plan(folder, tuple(range(FIRST_SEED, FIRST_SEED + seeds)), TUNING_SEEDS, jobs)


def play(cases: Sequence[Case], plan: Plan) -> list[Outcome]:
    """Choose the settings of cases, and play them with these, in their order.

    Raises:
        InvalidValueError: a case has the settings of one that does not stand before it.
    """
    played: dict[str, Outcome] = {}
    for case in cases:
        if case.tuned_in and case.tuned_in not in played:
            raise InvalidValueError(f"{case.name!r} has the settings of {case.tuned_in!r}: that comes first")
        played[case.name] = _play(case, plan, played.get(case.tuned_in))
    return list(played.values())


def _play(case: Case, plan: Plan, tuned: Outcome | None) -> Outcome:
    """Play a case with the settings of another, or with its own."""
    ends: Ends = {}
    heard: dict[str, Sequence[RoundMetrics]] = {}
    if tuned:
        case = replace(case, settings={**tuned.knobs, **case.settings})
        choices = {name: tuned.choices[name].of(scenario) for name, scenario in case.federations.items()}
    else:
        choices = _choices(case, plan)
    scenarios = [choice.scenario for choice in choices.values()]
    ours = _compared(case, plan, [(scenario, (scenario.method.name,)) for scenario in scenarios])
    for name, cells in zip(choices, (each.cells for each in ours), strict=True):
        heard[name] = [cell.last_round for cell in cells if cell.last_round is not None]
        kinds = (STUDENT, CLIENTS)[2 - len(cells[0].standings) :]  # without a public set there is no student
        for place, kind in enumerate(kinds):
            ends[f"{name}, {kind}"] = [cell.standings[place] for cell in cells]
    set_bytes = public_set_bytes(case.world(plan.seeds[0]), plan.seeds[0])
    if not case.baselines:
        return Outcome(case, ends, choices, {}, heard, set_bytes)
    (compared,) = _compared(case, plan, [(next(iter(case.federations.values())), case.baselines)])
    for cell in compared.cells:
        ends.setdefault(BASELINES[cell.method].title, []).append(cell.standings[0])
    return Outcome(case, ends, choices, compared.chosen, heard, set_bytes)


def _compared(case: Case, plan: Plan, what: Sequence[tuple[Scenario, tuple[str, ...]]]) -> list[Compared]:
    """Compare methods in each scenario."""
    comparisons = [
        Comparison(
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
        for scenario, methods in what
    ]
    return compare_all(comparisons, plan.folder, mapped=plan.mapped, on_done=lambda text: tell(f"{case.name}: {text}"))


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
            mapped=plan.mapped,
            by=case.chosen_by,
            judged=case.judged,
        )
    return made


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
