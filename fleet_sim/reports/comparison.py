"""What a comparison says to a person, a spreadsheet and a program. Nothing here plays anything."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np

from fd_runtime.pages import Section
from fleet_sim.baselines.catalogue import BASELINES
from fleet_sim.baselines.costs import SHARE_OF_BEST, best_end, cost_until, has_rounds
from fleet_sim.baselines.standings import OF_SCORES, Standing, asked
from fleet_sim.comparison.cells import plain
from fleet_sim.comparison.comparing import Compared
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.metrics.scores import SCORES
from fleet_sim.metrics.targets import rounds_to_target
from fleet_sim.reports.listening import listening_sections
from fleet_sim.reports.report import Curve, Report

_CURVES = 5
"""More than these, beside our own, and nobody can tell them apart."""


def report(compared: Compared, command: str) -> Report:
    """Return the report of a comparison that `command` made."""
    comparison = compared.comparison
    seeds, rounds, devices = len(comparison.seeds), comparison.scenario.rounds, comparison.scenario.devices
    prior = (
        "answers are corrected by its local prior" if comparison.scenario.scores.local_prior else "answers as they are"
    )
    summary = (
        f"{seeds} seeds, {rounds} rounds, {devices} devices. Mean ± 2 standard errors, differences paired by seed.",
        "all: rows that nobody has, those of unseen users where the world is split by user.",
        f"own: rows of a device's own kind, kept from it; {prior}.",
        f"Baselines: the best of at most {comparison.budget} settings each, found on validation rows of other seeds.",
        "Rules: the settings of the scenario. A dash: nobody asked, or training diverged.",
    )
    return Report("Comparison of methods", summary, _curves(compared), sections(compared), command)


def sections(compared: Compared) -> tuple[Section, ...]:
    """Return every table."""
    tables = _ends(compared), _scores(compared), _costs(compared), _differences(compared)
    made = (*tables, *_rounds(compared), _settings(compared))
    return tuple(section for section in made if section.rows)


def to_csv(compared: Compared) -> str:
    """Return one row per seed and standing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            *("seed", "method", "name", "all", "own", "calibration_error", "up_bytes", "down_bytes"),
            "rounds_to_target",
            *_score_columns(compared),
        )
    )
    target = target_of(compared)
    for cell in compared.cells:
        for s in cell.standings:
            numbers = (s.final, s.own, s.calibration, s.up_bytes, s.down_bytes)
            reached = rounds_to_target(s.curve, target) if has_rounds([s]) else None
            scores = (asked(s, what) for what in _score_columns(compared))
            row = (cell.seed, cell.method, s.name, *map(_number, numbers), reached or "", *map(_number, scores))
            writer.writerow(row)
    return text.getvalue()


def to_json(compared: Compared) -> str:
    """Return everything as one JSON document; what is nobody's is null."""
    document = {
        "scenario": asdict(compared.comparison.scenario),
        "target": target_of(compared),
        "settings": {name: asdict(knobs) for name, knobs in compared.chosen.items()},
        "cells": [asdict(cell) for cell in compared.cells],
    }
    return json.dumps(plain(document))


def target_of(compared: Compared) -> float:
    """Return the accuracy that costs are asked for."""
    if compared.comparison.target is not None:
        return compared.comparison.target
    best = best_end(by_name(compared))
    return 1.0 if math.isnan(best) else SHARE_OF_BEST * best


def by_name(compared: Compared) -> dict[str, list[Standing]]:
    """Return the standings of each name, one a seed, in the order of methods and seeds."""
    found: dict[str, list[Standing]] = {}
    for cell in compared.cells:
        for standing in cell.standings:
            found.setdefault(standing.name, []).append(standing)
    return found


# Tables.


def _ends(compared: Compared) -> Section:
    rows = [
        (
            name,
            *(estimate([ask(s) for s in seeds]).in_percent() for ask in (_final, _own, _calibration)),
            *(f"{_mean(seeds, ask):,.0f}" for ask in (_up, _down)),
        )
        for name, seeds in by_name(compared).items()
    ]
    columns = ("method", "all, %", "own, %", "calibration error, %", "B up", "B down")
    return Section("Where they end", columns, tuple(rows), "Bytes: of a device, a round.", _ours(compared))


def _scores(compared: Compared) -> Section:
    """What the scenario asks for besides accuracy; shares in percent."""
    asks = [(name, f"{name}: {kind}") for name in _score_names(compared) for kind in OF_SCORES]
    rows = [
        (name, *(_said([asked(s, what) for s in seeds], score) for score, what in asks))
        for name, seeds in by_name(compared).items()
        if asks
    ]
    note = "all: on test. own: mean over devices of each one's own rows; worst: of the device that is worst off."
    return Section("What else was asked", ("method", *(what for _, what in asks)), tuple(rows), note, _ours(compared))


def _score_columns(compared: Compared) -> list[str]:
    return [f"{name}: {kind}" for name in _score_names(compared) for kind in OF_SCORES]


def _said(values: Sequence[float], score: str) -> str:
    of = estimate(values)
    return of.in_percent() if SCORES[score].is_share else of.plainly()


def _score_names(compared: Compared) -> tuple[str, ...]:
    return compared.comparison.scenario.scores.names


def _costs(compared: Compared) -> Section:
    target = target_of(compared)
    rows = [(name, *_cost(seeds, target)) for name, seeds in by_name(compared).items() if has_rounds(seeds)]
    columns = ("method", "seeds that reach it", "rounds", "B up", "B down")
    note = "Mean over the seeds that reach it; bytes of a device until then."
    return Section(f"What {100 * target:.1f} % of all cost", columns, tuple(rows), note, _ours(compared))


def _cost(seeds: Sequence[Standing], target: float) -> tuple[str, ...]:
    cost = cost_until(seeds, target)
    if not cost.reached:
        return f"0 of {len(seeds)}", "-", "-", "-"
    return f"{cost.reached} of {len(seeds)}", f"{cost.rounds:.1f}", f"{cost.up_bytes:,.0f}", f"{cost.down_bytes:,.0f}"


def _differences(compared: Compared) -> Section:
    """Each standing of the first method, less every other method's."""
    known, ours, kinds = by_name(compared), _our_names(compared), _kinds(compared)
    asks = [(name, kind) for name in ours for kind in kinds if not _is_unknown(known[name], kind)]
    rows = [
        (
            name,
            *(
                paired([asked(s, kind) for s in known[our]], [asked(s, kind) for s in seeds]).in_percent(signed=True)
                for our, kind in asks
            ),
        )
        for name, seeds in known.items()
        if name not in ours
    ]
    columns = ("points above", *(f"{name}: {kind}" for name, kind in asks))
    return Section("Paired differences", columns, tuple(rows))


def _rounds(compared: Compared) -> Iterator[Section]:
    known: dict[str, list[RoundMetrics]] = {}
    for cell in compared.cells:
        if cell.last_round is not None:
            known.setdefault(cell.method, []).append(cell.last_round)
    return listening_sections(known)


def _settings(compared: Compared) -> Section:
    rows = []
    for name, knobs in compared.chosen.items():
        chosen = ", ".join(f"{axis} {getattr(knobs, axis):g}" for axis in BASELINES[name].axes)
        grid = ", ".join(f"{axis} {{{', '.join(f'{v:g}' for v in vs)}}}" for axis, vs in BASELINES[name].axes.items())
        rows.append((name, chosen, grid))
    return Section("Settings of the baselines", ("baseline", "chosen", "grid"), tuple(rows))


# Curves.


def _curves(compared: Compared) -> tuple[Curve, ...]:
    """Return ours, and the best of the others that have no coarser or finer twin here."""
    known, ours = by_name(compared), _our_names(compared)
    others = [name for name in known if name not in ours and not name.endswith(("int8", "int4", "fine-tuning"))]
    shown = sorted((n for n in others if not np.isnan(_mean(known[n], _final))), key=lambda n: -_mean(known[n], _final))
    return tuple(Curve(name, _mean_curve(known[name]), name in ours) for name in [*ours, *shown[:_CURVES]])


def _mean_curve(seeds: Sequence[Standing]) -> tuple[float, ...]:
    """Return the mean, for as many rounds as all seeds have: where faults are simulated a round may fail."""
    return tuple(float(np.mean(each)) for each in zip(*(standing.curve for standing in seeds), strict=False))


# Numbers.


def _final(standing: Standing) -> float:
    return standing.final


def _own(standing: Standing) -> float:
    return standing.own


def _calibration(standing: Standing) -> float:
    return standing.calibration


def _up(standing: Standing) -> float:
    return standing.up_bytes


def _down(standing: Standing) -> float:
    return standing.down_bytes


def _kinds(compared: Compared) -> list[str]:
    """Return what differences are taken of; all are shares."""
    shares = [name for name in _score_names(compared) if SCORES[name].is_share]
    return ["all", "own", *(f"{name}: {kind}" for name in shares for kind in OF_SCORES)]


def _mean(seeds: Sequence[Standing], ask: Callable[[Standing], float]) -> float:
    return float(np.mean([ask(standing) for standing in seeds]))


def _is_unknown(seeds: Sequence[Standing], what: str) -> bool:
    return all(np.isnan(asked(standing, what)) for standing in seeds)


def _our_names(compared: Compared) -> list[str]:
    first = compared.comparison.methods[0]
    return list(dict.fromkeys(s.name for cell in compared.cells if cell.method == first for s in cell.standings))


def _ours(compared: Compared) -> frozenset[str]:
    return frozenset(_our_names(compared))


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
