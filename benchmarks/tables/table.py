"""A table: federations and baselines on the same worlds over fresh seeds, beside what others printed.

    python -m benchmarks.tables.NAME --folder FOLDER [--data mnist=PATH ...] [--seeds 5] [--jobs 2] [--write]
    python -m benchmarks.tables.NAME --folder FOLDER --short        seconds: shows that the command works

A table describes; `fleet_sim.comparison` plays, with the programs' own cores, rules and graphs, and `choice` has chosen
the settings of federations as those of baselines are chosen: on validation rows of other seeds, with the same budget.
What FOLDER holds is not played again, so that a table which was cut short goes on.

Nothing here is printed before all of it has been played.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.publish import publish
from benchmarks.tables.choice import Axes, Choice, chosen
from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.baselines.standings import Standing
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.comparison import Compared, Comparison, MakeWorld, compare
from fleet_sim.metrics.estimates import Estimate, estimate, paired
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import Scenario

STUDENT, CLIENTS = "student", "mean device"
FIRST_SEED, TUNING_SEEDS = 100, (0, 1)
SHORT_SETTINGS = {name: Knobs(epochs=2, learning_rate=3e-2) for name in ("fedavg/tail", "local-only")}
"""Of the short form, which tunes nothing."""

Form = Literal["full", "short"]
Ends = dict[str, list[Standing]]
"""Where each method ended, one standing a seed, by its name in the table."""


@dataclass(frozen=True)
class Goal:
    """What we set out to reach, in percent of the test rows: `name`, or how far it is ahead of `than`, at `least`."""

    name: str
    least: float
    because: str
    than: str = ""

    def __str__(self) -> str:
        what = f"{self.name}, above {self.than}" if self.than else self.name
        least = f"{self.least:+g}" if self.than else f"{self.least:g}"
        return f"{what}: at least {least} ({self.because})"

    def measured(self, ends: Ends) -> Estimate:
        """Return what became of it, in 0..1."""
        ours = [standing.final for standing in ends[self.name]]
        return paired(ours, [standing.final for standing in ends[self.than]]) if self.than else estimate(ours)


@dataclass(frozen=True)
class Case:
    """A column: a world, and what is played in it.

    Attributes:
        name: of the column.
        world: of each seed.
        federations: scenarios by name; the first is ours, and differences are taken to it.
        axes: values to try for the settings of federations, see `choice`.
        baselines: by their names in `fleet_sim.baselines.catalogue`.
        settings: of baselines that are not tuned here.
        budget: settings that are tried for each federation and each baseline, at most.
        own_axes: of federations that have others, by name.
        is_tuned_once: whether the other federations have the settings that were chosen for the first.
        published: figures that others printed, in percent, by who printed them.
        goals: of ours.
    """

    name: str
    world: MakeWorld
    federations: Mapping[str, Scenario]
    axes: Axes
    baselines: tuple[str, ...]
    settings: Mapping[str, Knobs] = field(default_factory=dict)
    budget: int = 8
    own_axes: Mapping[str, Axes] = field(default_factory=dict)
    is_tuned_once: bool = False
    published: Mapping[str, str] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()

    def axes_of(self, federation: str) -> Axes:
        """Return the values to try for the settings of a federation."""
        return self.own_axes.get(federation, self.axes)


@dataclass(frozen=True)
class Plan:
    """How much is played: seeds that are compared on, seeds that settings are chosen on, processes."""

    folder: Path
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    jobs: int = 1


@dataclass(frozen=True)
class Outcome:
    """A case that was played, the settings that were chosen for it, and whom federations listened to in the end."""

    case: Case
    ends: Ends
    choices: Mapping[str, Choice]
    knobs: Mapping[str, Knobs]
    heard: Mapping[str, Sequence[RoundMetrics]]


@dataclass(frozen=True)
class Table:
    """What a command plays and says.

    Attributes:
        section: of docs/benchmarks.md.
        module: that holds it.
        cases: of the full form or of the short one, by where data lie.
        protocol: where ours differs from that of the published figures.
        has_own: whether it also says what devices make of their own kind of rows.
        say: what a table says that is not laid out like others.
    """

    section: str
    module: str
    cases: Callable[[Mapping[str, Path], Form], Sequence[Case]]
    protocol: str
    has_own: bool = False
    say: Callable[[Table, Sequence[Outcome], Plan], str] | None = None


@only_errors()
def run(table: Table) -> None:
    """Play a table as the command line asks."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.tables.{table.module}")
    parser.add_argument("--folder", type=Path, required=True, help="for all that is made; an earlier one goes on")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH", help="where data sets lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="play these columns, and print no table")
    parser.add_argument("--short", action="store_true", help="seconds: shows that the command works, and no more")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    asked = parser.parse_args()
    if asked.write and (asked.short or asked.only):
        parser.error("only a whole table is written")
    cases = table.cases(dict(_named(item) for item in asked.data), "short" if asked.short else "full")
    if asked.only:
        for case in cases:
            if case.name in asked.only:
                play(case, plan_of(asked.folder, asked.seeds, asked.jobs, is_short=asked.short))
        return
    plan = plan_of(asked.folder, asked.seeds, asked.jobs, is_short=asked.short)
    text = (table.say or report)(table, [play(case, plan) for case in cases], plan)
    print(text)
    if asked.write:
        command = f"python -m benchmarks.tables.{table.module} --folder FOLDER --seeds {asked.seeds} --write"
        publish(table.section, command, text)


def plan_of(folder: Path, seeds: int, jobs: int, *, is_short: bool) -> Plan:
    """Return how much is played; the short form has two seeds, and one more to choose settings on."""
    if is_short:
        return Plan(folder, (FIRST_SEED, FIRST_SEED + 1), (0,), jobs)
    return Plan(folder, tuple(range(FIRST_SEED, FIRST_SEED + seeds)), TUNING_SEEDS, jobs)


def _named(item: str) -> tuple[str, Path]:
    name, _, path = item.partition("=")
    return name, Path(path)


# Playing.


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
    comparison = Comparison(case.world, scenario, methods, plan.seeds, plan.tuning_seeds, case.budget, case.settings)
    return compare(comparison, plan.folder, jobs=plan.jobs, on_done=lambda text: tell(f"{case.name}: {text}"))


def _choices(case: Case, plan: Plan) -> dict[str, Choice]:
    made: dict[str, Choice] = {}
    for name, scenario in case.federations.items():
        if made and case.is_tuned_once:
            made[name] = next(iter(made.values())).of(scenario)
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
        )
    return made


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Saying.


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return what a table says, as Markdown."""
    parts = [
        f"{len(plan.seeds)} seeds; accuracy on test rows, %; ± are two standard errors. {chosen_how(outcomes, plan)}",
        accuracies(outcomes),
        f"What differs from the published protocol: {table.protocol}",
    ]
    if table.has_own:
        parts.insert(2, own(outcomes))
    if any(outcome.case.goals for outcome in outcomes):
        parts.append(goals(outcomes))
    parts += [differences(outcomes), traffic(outcomes), settings(outcomes)]
    return "\n\n".join(parts)


def chosen_how(outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return how settings were chosen."""
    budget, seeds = outcomes[0].case.budget, len(plan.tuning_seeds)
    text = f"Federations and baselines have the best of at most {budget} settings each, chosen on validation rows of"
    return f"{text} {seeds} other seed{'s' * (seeds > 1)}."


def accuracies(outcomes: Sequence[Outcome]) -> str:
    """Return where all methods end, a column a case, and below them what others printed."""
    rows = [[name, *(_accuracy(outcome.ends.get(name)) for outcome in outcomes)] for name in names_of(outcomes)]
    rows += [
        [f"*published:* {name}", *(outcome.case.published.get(name, "") for outcome in outcomes)]
        for name in dict.fromkeys(name for outcome in outcomes for name in outcome.case.published)
    ]
    return table_of(["method", *(outcome.case.name for outcome in outcomes)], rows)


def own(outcomes: Sequence[Outcome]) -> str:
    """Return the share of rows of a device's own kind, kept from it, that it gets right with its local prior."""
    rows = [
        [name, *(_accuracy(outcome.ends.get(name), lambda standing: standing.own) for outcome in outcomes)]
        for name in names_of(outcomes)
        if not name.endswith(STUDENT)
    ]
    return table_of(["own kind of rows", *(outcome.case.name for outcome in outcomes)], rows)


def goals(outcomes: Sequence[Outcome]) -> str:
    """Return what we set out to reach, and whether the mean reaches it."""
    rows = []
    for outcome in outcomes:
        for goal in outcome.case.goals:
            found = goal.measured(outcome.ends)
            verdict = "reached" if 100 * found.mean >= goal.least else "**missed**"
            rows.append([f"{outcome.case.name}: {goal}", found.in_percent(signed=bool(goal.than)), verdict])
    return table_of(["goal", "measured", ""], rows)


def differences(outcomes: Sequence[Outcome]) -> str:
    """Return how far the first standing, our student, is ahead of every other, paired by seed."""
    ours, *others = names_of(outcomes)
    rows = [[name, *(_difference(outcome.ends, ours, name) for outcome in outcomes)] for name in others]
    return table_of([f"points of *{ours}* above", *(outcome.case.name for outcome in outcomes)], rows)


def traffic(outcomes: Sequence[Outcome]) -> str:
    """Return the bytes that a device sends and receives a round."""
    rows = []
    for name in names_of(outcomes):
        cells = [_bytes(outcome.ends.get(name)) for outcome in outcomes]
        if any(cell != "-" for cell in cells) and not name.endswith(CLIENTS):
            rows.append([name.removesuffix(f", {STUDENT}"), *cells])
    return table_of(["bytes of a device a round, up / down", *(outcome.case.name for outcome in outcomes)], rows)


def settings(outcomes: Sequence[Outcome]) -> str:
    """Return the settings that were chosen, and from which."""
    rows = []
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.choices):
        cells = [outcome.choices[name].text if name in outcome.choices else "" for outcome in outcomes]
        grid = next(outcome.case.axes_of(name) for outcome in outcomes if name in outcome.choices)
        rows.append([name, *cells, _grid({path.rpartition(".")[2]: values for path, values in grid.items()})])
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.knobs):
        cells = [_knobs(name, outcome.knobs[name]) if name in outcome.knobs else "" for outcome in outcomes]
        rows.append([BASELINES[name].title, *cells, _grid(BASELINES[name].axes)])
    return table_of(["settings chosen", *(outcome.case.name for outcome in outcomes), "of"], rows)


def _grid(axes: Axes) -> str:
    return ", ".join(f"{name} {{{', '.join(f'{value:g}' for value in values)}}}" for name, values in axes.items())


def names_of(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in outcome.ends))


def _accuracy(
    standings: Sequence[Standing] | None, ask: Callable[[Standing], float] = lambda standing: standing.final
) -> str:
    return estimate([ask(standing) for standing in standings]).in_percent() if standings else "-"


def _difference(ends: Ends, ours: str, theirs: str) -> str:
    if ours not in ends or theirs not in ends:
        return "-"
    return paired([s.final for s in ends[ours]], [s.final for s in ends[theirs]]).in_percent(signed=True)


def _bytes(standings: Sequence[Standing] | None) -> str:
    if not standings or not any(standing.totals for standing in standings):
        return "-"
    up, down = (
        sum(getattr(standing, way) for standing in standings) / len(standings) for way in ("up_bytes", "down_bytes")
    )
    return "-" if math.isnan(up) else f"{up:,.0f} / {down:,.0f}"


def _knobs(name: str, knobs: Knobs) -> str:
    return ", ".join(f"{axis} {getattr(knobs, axis):g}" for axis in BASELINES[name].axes)


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    return "\n".join([_row(columns), "|---" * len(columns) + "|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
