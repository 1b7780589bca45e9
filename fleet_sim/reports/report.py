"""What a run says to a person: a table in the terminal, a PNG, and one HTML file that needs nothing else.

`Report` is the value, the three functions render it; none of them computes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console

from fd_runtime.files import write_atomically
from fd_runtime.pages import Page, Section, print_sections, write_page

_WIDTH_IN, _HEIGHT_IN = 9.5, 5.2
# Okabe and Ito's palette reads on white, on dark, and to colour-blind eyes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy over rounds, in [0, 1]; `is_ours` draws it bold. One value = a level line; NaN = nobody was asked."""

    name: str
    accuracy: tuple[float, ...]
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One run: a title, what a reader must know first, the curves and the tables."""

    title: str
    summary: tuple[str, ...]
    curves: tuple[Curve, ...]
    sections: tuple[Section, ...]
    command: str


def print_report(report: Report, console: Console) -> None:
    """Print summary and tables to the terminal."""
    print_sections(report.title, report.summary, report.sections, console)


def write_png(report: Report, path: Path) -> None:
    """Write the curves as a picture."""
    write_atomically(path, _draw(report, "png"))


def write_html(report: Report, path: Path) -> None:
    """Write the whole report as one file."""
    sections = (*report.sections, _curve_table(report))
    picture = _draw(report, "svg").decode()
    write_page(Page(report.title, report.summary, (picture,), sections, report.command), path)


def _draw(report: Report, form: str) -> bytes:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedistill", "font.size": 10}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        axes = figure.add_subplot()
        rounds = max(len(curve.accuracy) for curve in report.curves)
        for index, curve in enumerate(report.curves):
            is_level = len(curve.accuracy) == 1
            asked = [(n, 100 * a) for n, a in enumerate(_over(rounds, curve), 1) if not math.isnan(a)]
            axes.plot(
                [number for number, _ in asked],
                [percent for _, percent in asked],
                marker="" if len(asked) == rounds else ".",
                color=_COLOURS[index % len(_COLOURS)],
                linewidth=2.6 if curve.is_ours else 1.4,
                linestyle="--" if is_level else "-",
                label=f"{curve.name}  {asked[-1][1]:.1f}" if asked else curve.name,
            )
        axes.set_xlabel("round")
        axes.set_ylabel("test accuracy, %")
        axes.set_xlim(1, max(rounds, 2))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=form, transparent=form == "svg", dpi=130, metadata={"Date": None} if form == "svg" else None
        )
    return buffer.getvalue()


def _curve_table(report: Report) -> Section:
    """The numbers behind the picture."""
    rounds = max(len(curve.accuracy) for curve in report.curves)
    columns = ("round", *(str(n) for n in range(1, rounds + 1)))
    rows = tuple((curve.name, *map(_percent, _over(rounds, curve))) for curve in report.curves)
    padded = tuple(row + ("",) * (len(columns) - len(row)) for row in rows)
    return Section("The numbers behind the picture: test accuracy, %", columns, padded)


def _over(rounds: int, curve: Curve) -> tuple[float, ...]:
    return curve.accuracy * rounds if len(curve.accuracy) == 1 else curve.accuracy


def _percent(accuracy: float) -> str:
    return "-" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"
