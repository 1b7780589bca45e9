"""What a table says, as Markdown. Nothing here plays anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import mean

import numpy as np

from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.baselines.costs import SHARE_OF_BEST, best_end, cost_until, has_rounds
from fleet_sim.baselines.standings import OF_SCORES, Standing, asked
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.metrics.scores import F64, SCORES
from fleet_sim.tables.case import CLIENTS, STUDENT, Ends, Outcome, Plan, Table
from fleet_sim.tables.choice import Axes

_AVERAGES = ("fedavg/whole", "fedavg/whole/int8", "fedavg/whole/int4")
"""Weights of the whole model, by how coarsely they travel; the first as they are."""


def report(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return what a table says, as Markdown."""
    parts = [
        f"{len(plan.seeds)} seeds; accuracy on test rows, %; ± are two standard errors. {chosen_how(outcomes, plan)}",
        accuracies(outcomes),
        what_differs(table),
    ]
    if table.has_own:
        parts.insert(2, own(outcomes))
    parts[2:2] = [scores(outcome) for outcome in outcomes if outcome.case.scores]
    if any(outcome.case.goals for outcome in outcomes):
        parts.append(goals(outcomes))
    parts += [differences(outcomes), traffic(outcomes), break_even(outcomes), costs(outcomes), settings(outcomes)]
    return "\n\n".join(filter(None, parts))


def what_differs(table: Table) -> str:
    """Return the sentence on what was published, and how."""
    return f"What differs from the published protocol: {table.protocol}"


def report_of_scores(table: Table, outcomes: Sequence[Outcome], plan: Plan, than: str) -> str:
    """Return what a table says where accuracy is not what the field asks for.

    Args:
        table: what was played.
        outcomes: of its cases, which have `chosen_by`.
        plan: how much was played.
        than: the method that each device is put beside itself under.
    """
    parts = [f"{len(plan.seeds)} seeds; %; ± are two standard errors. {chosen_how(outcomes, plan)}"]
    for outcome in outcomes:
        parts += [scores(outcome), beside(outcome, than, outcome.case.chosen_by)]
    parts += [goals(outcomes), traffic(outcomes), break_even(outcomes)]
    if telling := [outcome for outcome in outcomes if outcome.case.is_accuracy_telling]:
        parts.append(costs(telling))
    return "\n\n".join([*filter(None, parts), settings(outcomes), f"The cut: {table.protocol}"])


def chosen_how(outcomes: Sequence[Outcome], plan: Plan) -> str:
    """Return how settings were chosen."""
    dash = "A dash: not measured, or training diverged in a seed."
    case, who = outcomes[0].case, _who_chose(outcomes)
    if not who:
        return f"Settings are those of the scenarios; none was chosen. {dash}"
    seeds = f"{len(plan.tuning_seeds)} other seed{'s' * (len(plan.tuning_seeds) > 1)}"
    how = f"one knob after the other, by {case.chosen_by or 'accuracy'}{_by_whom(outcomes)}"
    says = [f"{who} the best of at most {case.budget} settings each, found on validation rows of {seeds}, {how}."]
    says += [f"*{o.case.name}* has the settings of *{o.case.tuned_in}*." for o in outcomes if o.case.tuned_in]
    if case.is_tuned_once and len(case.federations) > 1:
        says.append("The other federations have the settings of the first.")
    return " ".join((*says, dash))


def _who_chose(outcomes: Sequence[Outcome]) -> str:
    """Return whose settings were chosen, as the subject of a sentence; empty: nobody's."""
    if not any(outcome.knobs for outcome in outcomes):
        return "Federations have" if _has_choices(outcomes) else ""
    return "Federations and baselines have" if _has_choices(outcomes) else "Federations are as set, baselines have"


def _by_whom(outcomes: Sequence[Outcome]) -> str:
    """Return whose score chooses, where that is not the only one there is."""
    whose = f", a federation's by that of its {outcomes[0].case.judged}" if _has_choices(outcomes) else ""
    tuned = [BASELINES[name] for name in dict.fromkeys(chain.from_iterable(outcome.knobs for outcome in outcomes))]
    if own := " and ".join(f"*{baseline.title}*" for baseline in tuned if baseline.goal == "own"):
        whose += f", those of {own} by a device's own kind of rows"
    return whose


def _has_choices(outcomes: Sequence[Outcome]) -> bool:
    return any(choice.values for outcome in outcomes for choice in outcome.choices.values())


def accuracies(outcomes: Sequence[Outcome]) -> str:
    """Return where all methods end, a column a case, and below them what others printed."""
    rows = [[name, *(_said(outcome.ends.get(name)) for outcome in outcomes)] for name in names_of(outcomes)]
    rows += [
        [f"*published:* {name}", *(outcome.case.published.get(name, "") for outcome in outcomes)]
        for name in dict.fromkeys(name for outcome in outcomes for name in outcome.case.published)
    ]
    return table_of(["method", *(outcome.case.name for outcome in outcomes)], rows)


def own(outcomes: Sequence[Outcome]) -> str:
    """Return the share of rows of a device's own kind, kept from it, that it gets right as it would say them."""
    rows = [
        [name, *(_said(outcome.ends.get(name), "own") for outcome in outcomes)]
        for name in names_of(outcomes)
        if not name.endswith(STUDENT)
    ]
    return table_of(["own kind of rows", *(outcome.case.name for outcome in outcomes)], rows)


def scores(outcome: Outcome) -> str:
    """Return what the scenarios of one case ask besides accuracy: on test, on own rows, and of the worst device.

    Also whether a model that says 80 % hits 80 % of the time: the expected calibration error on test.
    """
    asks = [*(f"{name}: {kind}" for name in outcome.case.scores for kind in OF_SCORES), "calibration"]
    rows = [[name, *(_said(standings, what) for what in asks)] for name, standings in outcome.ends.items()]
    return table_of([outcome.case.name, *asks[:-1], "calibration error"], rows)


def beside(outcome: Outcome, than: str, score: str) -> str:
    """Return how each device stands beside itself under the method `than`, by a score on its own rows.

    A mean hides who pays for it: the share of devices that are better off, the mean one, and the one that loses most.
    """
    rows = []
    for name, standings in outcome.ends.items():
        gains = [_gains(*pair, score) for pair in zip(standings, outcome.ends[than], strict=True)]
        if any(math.isnan(standing.final) for standing in standings):
            rows.append([name, "-", "-", "-"])
        elif name != than and all(map(len, gains)):
            better_off = estimate([float(np.mean(each > 0)) for each in gains]).in_percent()
            mean, least = (estimate([float(ask(each)) for each in gains]) for ask in (np.mean, np.min))
            rows.append([name, better_off, mean.in_percent(signed=True), least.in_percent(signed=True)])
    return table_of([f"{score}, own rows, beside *{than}*", "better off, % of devices", "mean", "loses most"], rows)


def _gains(standing: Standing, other: Standing, score: str) -> F64:
    """Return how far each device is ahead of itself; of those whose rows can tell. Empty: nobody was asked."""
    here, there = (
        next((scored.own for scored in each.scores if scored.name == score), ()) for each in (standing, other)
    )
    if not here or not there:
        return np.empty(0)
    gains: F64 = np.array(here) - np.array(there)
    return gains[~np.isnan(gains)]


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
        cells = [_bytes(outcome.ends.get(name, ())) for outcome in outcomes]
        if any(cell != "-" for cell in cells) and not name.endswith(CLIENTS):
            rows.append([name.removesuffix(f", {STUDENT}"), *cells])
    return table_of(["bytes of a device a round, up / down", *(outcome.case.name for outcome in outcomes)], rows)


def break_even(outcomes: Sequence[Outcome]) -> str:
    """Return how many trained parameters cost as much a round, as weights, as soft labels of the first federation do.

    Says nothing where nobody's weights were averaged as 32-bit numbers, whose bytes tell how many there are.
    """
    played = [outcome for outcome in outcomes if _parameters(outcome)]
    if not played:
        return ""
    titles = [BASELINES[name].title for name in _AVERAGES if any(BASELINES[name].title in o.ends for o in played)]
    rows = [[title, *(_even(outcome, title) for outcome in played)] for title in titles]
    rows.append(["*parameters of the whole model here*", *(f"{_parameters(outcome):,}" for outcome in played)])
    return table_of(["break-even, parameters", *(outcome.case.name for outcome in played)], rows)


def _parameters(outcome: Outcome) -> int:
    """Return how many parameters were averaged; 0: none were, or training diverged in every seed."""
    up, _ = bytes_a_round(outcome.ends.get(BASELINES[_AVERAGES[0]].title, ()))
    return round(up / 4)


def _even(outcome: Outcome, title: str) -> str:
    first = next(iter(outcome.ends.values()))
    ours, theirs = (sum(bytes_a_round(seeds)) for seeds in (first, outcome.ends.get(title, ())))
    return f"{_parameters(outcome) * ours / theirs:,.0f}" if theirs else "-"


def costs(outcomes: Sequence[Outcome]) -> str:
    """Return the bytes of a device until equal accuracy: 95 % of where the best of those with rounds ends.

    Those who distil need the public set besides, once.
    """
    targets = [SHARE_OF_BEST * best_end(outcome.ends) for outcome in outcomes]
    named = [name for name in names_of(outcomes) if any(has_rounds(o.ends.get(name, ())) for o in outcomes)]
    rows = [
        [name, *(_cost(outcome.ends.get(name, ()), target) for outcome, target in zip(outcomes, targets, strict=True))]
        for name in named
    ]
    if any(outcome.public_set_bytes for outcome in outcomes):
        rows.append(["*the public set, once*", *(f"{outcome.public_set_bytes:,}" for outcome in outcomes)])
    columns = [f"{o.case.name}, to {100 * target:.1f} %" for o, target in zip(outcomes, targets, strict=True)]
    played = [scenario for outcome in outcomes for scenario in outcome.case.federations.values()]
    every = max((scenario.measuring.every for scenario in played), default=1)
    seldom = f"; federations are measured every {every} rounds" if every > 1 else ""
    return table_of([f"bytes of a device until equal accuracy, up / down (rounds{seldom})", *columns], rows)


def _cost(seeds: Sequence[Standing], target: float) -> str:
    if not has_rounds(seeds):
        return "-"
    cost = cost_until(seeds, target)
    if not cost.reached:
        return "never"
    some = f", {cost.reached} of {len(seeds)} seeds" if cost.reached < len(seeds) else ""
    return f"{cost.up_bytes:,.0f} / {cost.down_bytes:,.0f} ({cost.rounds:.1f}{some})"


def settings(outcomes: Sequence[Outcome]) -> str:
    """Return the settings that were chosen, and from which."""
    rows = []
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.choices):
        cells = [outcome.choices[name].text if name in outcome.choices else "" for outcome in outcomes]
        grid = next(outcome.case.axes_of(name) for outcome in outcomes if name in outcome.choices)
        rows.append([name, *cells, _grid({path.rpartition(".")[2]: values for path, values in grid.items()})])
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.knobs):
        cells = [_knobs(name, outcome.knobs[name]) if name in outcome.knobs else "" for outcome in outcomes]
        grids = next(outcome.case.grids for outcome in outcomes if name in outcome.knobs)
        rows.append([BASELINES[name].title, *cells, _grid(grids.get(name, BASELINES[name].axes))])
    return table_of(["settings chosen", *(outcome.case.name for outcome in outcomes), "of"], rows)


def _grid(axes: Axes) -> str:
    return ", ".join(f"{name} {{{', '.join(f'{value:g}' for value in values)}}}" for name, values in axes.items())


def names_of(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in outcome.ends))


def _said(standings: Sequence[Standing] | None, what: str = "all") -> str:
    if not standings:
        return "-"
    of, name = estimate([asked(standing, what) for standing in standings]), what.partition(": ")[0]
    return of.in_percent() if name not in SCORES or SCORES[name].is_share else of.plainly()


def _difference(ends: Ends, ours: str, theirs: str) -> str:
    if ours not in ends or theirs not in ends:
        return "-"
    return paired([s.final for s in ends[ours]], [s.final for s in ends[theirs]]).in_percent(signed=True)


def _bytes(seeds: Sequence[Standing]) -> str:
    up, down = bytes_a_round(seeds)
    return f"{up:,.0f} / {down:,.0f}" if up or down else "-"


def _knobs(name: str, knobs: Knobs) -> str:
    return ", ".join(f"{axis} {getattr(knobs, axis):g}" for axis in BASELINES[name].axes)


def bytes_a_round(seeds: Sequence[Standing]) -> tuple[float, float]:
    """Return the bytes that a device sends and receives a round, of seeds that did not diverge; 0: nothing travels."""
    sent = [standing for standing in seeds if standing.totals]
    if not sent:
        return 0.0, 0.0
    return mean(standing.up_bytes for standing in sent), mean(standing.down_bytes for standing in sent)


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    return "\n".join([_row(columns), "|---" * len(columns) + "|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
