"""What a table found, to look at: where each method ends, and what it had cost a device until then. Plays nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fleet_sim.baselines.costs import has_rounds
from fleet_sim.baselines.standings import Standing, asked
from fleet_sim.metrics.estimates import estimate
from fleet_sim.tables.case import CLIENTS, STUDENT, Outcome

OURS, THEIRS = "#0072B2", "#8C8C8C"
_CURVES = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#000000")
"""Of methods whose weights travel. Okabe and Ito's palette, as in `fleet_sim.reports.report`."""
_WIDTH_IN, _ROW_IN = 11.0, 0.28


def drawn(outcomes: Sequence[Outcome]) -> bytes:
    """Return a PNG with a line of panels for each case that has baselines.

    Left, where methods end, in percent of the score that settings were chosen by: a dot is the mean on test, a diamond
    that on devices' own rows, and whiskers are two standard errors. Right, accuracy on test over all bytes that a
    device has sent and received; left out where classes are so unlike in number that accuracy says nothing.
    """
    shown = [outcome for outcome in outcomes if outcome.case.baselines] or list(outcomes)
    is_wide = any(outcome.case.is_accuracy_telling for outcome in shown)
    heights = [1.2 + _ROW_IN * len(outcome.ends) for outcome in shown]
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(_WIDTH_IN if is_wide else 0.6 * _WIDTH_IN, sum(heights)), layout="constrained")
        grid = figure.subplots(
            len(shown), 1 + is_wide, squeeze=False, gridspec_kw={"height_ratios": heights, "wspace": 0.03}
        )
        for outcome, axes in zip(shown, grid, strict=True):
            _draw_ends(axes[0], outcome)
            if outcome.case.is_accuracy_telling:
                _draw_costs(axes[1], outcome)
            elif is_wide:
                axes[1].axis("off")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw_ends(axes: Any, outcome: Outcome) -> None:
    score = outcome.case.chosen_by
    asks = {kind: f"{score}: {kind}" if score else kind for kind in ("all", "own")}
    names = list(outcome.ends)[::-1]
    for place, name in enumerate(names):
        for (kind, ask), marker, off in zip(asks.items(), "oD", (0.14, -0.14), strict=True):
            found = estimate([asked(standing, ask) for standing in outcome.ends[name]])
            if not math.isnan(found.mean):
                axes.errorbar(
                    100 * found.mean,
                    place + off,
                    xerr=200 * found.standard_error,
                    fmt=marker,
                    markersize=5,
                    elinewidth=1,
                    color=OURS if _is_ours(outcome, name) else THEIRS,
                    markerfacecolor=None if kind == "all" else "white",
                )
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(OURS if _is_ours(outcome, name) else "black")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"{score or 'accuracy'}, %: filled on all test rows, open on devices' own")
    axes.set_title(outcome.case.name, loc="left", fontweight="bold")
    _plain(axes)


def _draw_costs(axes: Any, outcome: Outcome) -> None:
    """Of federations the first alone: the others differ in what the table says."""
    ours, colours = next(iter(outcome.case.federations)), cycle(_CURVES)
    for name, seeds in outcome.ends.items():
        is_ours = _is_ours(outcome, name)
        if not has_rounds(seeds) or (is_ours and name not in (f"{ours}, {STUDENT}", f"{ours}, {CLIENTS}")):
            continue
        kilobytes, percent = _mean_path(seeds)
        if not len(percent):  # it diverged in a seed
            continue
        axes.plot(
            kilobytes,
            percent,
            label=name,
            color=OURS if is_ours else next(colours),
            linewidth=2.2 if is_ours else 1.4,
            linestyle="--" if name.endswith(STUDENT) else "-",
        )
    axes.set(xscale="log", xlabel="kB that a device has sent and received", ylabel="accuracy on all test rows, %")
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    _plain(axes)


def _mean_path(seeds: Sequence[Standing]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return kilobytes and percent after each round, means over seeds; as many rounds as all seeds have."""
    rounds = min(min(len(standing.curve), len(standing.totals)) for standing in seeds)
    kilobytes = np.array([[sum(both) / 1000 for both in standing.totals[:rounds]] for standing in seeds])
    percent = np.array([[100 * each for each in standing.curve[:rounds]] for standing in seeds])
    return kilobytes.mean(axis=0), percent.mean(axis=0)


def _is_ours(outcome: Outcome, name: str) -> bool:
    return name.rpartition(",")[0] in outcome.case.federations


def _plain(axes: Any) -> None:
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
