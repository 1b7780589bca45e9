"""Where the break-even lies between soft labels and weights: the picture and the table of docs/why.md.

    python benchmarks/why.py          writes docs/images/break-even.png and the section of docs/why.md

Nothing is played: bytes of a device a round, up, are those that `benchmarks/comparison.py label-skew` measured and left
in docs/benchmarks.md. They give what a cell of a soft label and a parameter cost on the wire, entropy coding included:

    N x C x b  against  |theta| x b'

N probes, C classes, |theta| parameters that are trained.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fd_runtime.files import write_atomically
from fleet_sim.tables import publish, table_of

DOCS = Path(__file__).parent.parent / "docs"
PROBES, CLASSES = 1000, 10
"""Of the preset `label-skew`."""
SOFT_LABELS, AVERAGE = "competence FD, student", "FedAvg, whole model"
WAYS = {"f32": "32-bit weights", "int8": "8-bit differences", "int4": "4-bit differences"}
CELLS = {
    100 * 2: "100 probes, 2 classes",
    1000 * 10: "1,000 probes, 10 classes",
    5000 * 100: "5,000 probes, 100 classes",
}


@dataclass(frozen=True)
class Rates:
    """Bits on the wire: of a cell of a soft label, and of a parameter by way."""

    cell: float
    parameter: dict[str, float]

    def even(self, cells: int, way: str) -> float:
        """Return the parameters whose weights cost as much as `cells` do."""
        return cells * self.cell / self.parameter[way]


def main() -> None:
    rates = measured((DOCS / "benchmarks.md").read_text(encoding="utf-8"))
    write_atomically(DOCS / "images" / "break-even.png", drawn(rates))
    text = table(rates)
    print(text)
    publish("break-even", "python benchmarks/why.py", text, DOCS / "why.md")


def measured(page: str) -> Rates:
    """Return the rates of the section on `label-skew`.

    Raises:
        ValueError: the page lacks the section, or a row of it.
    """
    section = re.search(r"<!-- begin comparison on label-skew -->(.*?)\*\*What", page, re.DOTALL)
    if section is None:
        raise ValueError("docs/benchmarks.md has no comparison on label-skew")
    f32 = _up_bytes(section[1], f"{AVERAGE}, f32")
    parameters = f32 / 4
    of = {way: 8 * _up_bytes(section[1], f"{AVERAGE}, {way}") / parameters for way in WAYS}
    return Rates(8 * _up_bytes(section[1], SOFT_LABELS) / (PROBES * CLASSES), of)


def _up_bytes(section: str, method: str) -> float:
    row = re.search(rf"^\| \**{re.escape(method)}\** \|.*?\| \**([\d,]+)\** \| \**[\d,]+\** \|$", section, re.MULTILINE)
    if row is None:
        raise ValueError(f"the section has no row of {method}")
    return float(row[1].replace(",", ""))


def table(rates: Rates) -> str:
    columns = [
        "what a device says",
        "kB a round",
        *(f"even with {name} of so many parameters" for name in WAYS.values()),
    ]
    rows = [
        [name, f"{cells * rates.cell / 8000:,.1f}", *(_rounded(rates.even(cells, way)) for way in WAYS)]
        for cells, name in CELLS.items()
    ]
    bits = ", ".join(f"{rates.parameter[way]:.2f} ({name})" for way, name in WAYS.items())
    return f"{table_of(columns, rows)}\n\nBits on the wire: {rates.cell:.2f} a cell; a parameter {bits}."


def _rounded(value: float) -> str:
    """Two figures are known."""
    return f"{float(f'{value:.2g}'):,.0f}"


def drawn(rates: Rates) -> bytes:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes, parameters = figure.subplots(), np.logspace(3, 9, 200)
    for (way, name), shade in zip(WAYS.items(), ("#1f4e79", "#3f87c6", "#9cc4e8"), strict=True):
        axes.plot(parameters, parameters * rates.parameter[way] / 8000, color=shade, label=f"weights: {name}")
    for (cells, name), style in zip(CELLS.items(), (":", "-", "--"), strict=True):
        kb = cells * rates.cell / 8000
        axes.axhline(kb, color="#c0504d", linestyle=style, label=f"soft labels: {name}")
        axes.plot([rates.even(cells, way) for way in WAYS], [kb] * len(WAYS), "o", color="#c0504d", markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="parameters that a device trains", ylabel="kB of a device a round, up")
    axes.set_xlim(parameters[0], parameters[-1])
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


if __name__ == "__main__":
    main()
