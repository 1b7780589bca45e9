"""The table of injected faults in docs/security.md: how many of each kind were tried on each part, how many bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- faults: python -m tests.faults --write -->", "<!-- end of faults -->"
FAULTS = ("kill", "ENOSPC", "EIO")


class Played(TypedDict):
    """One case: of which part, of how many there are, which fault, which case, what was wrong; empty: nothing."""

    area: str
    all: int
    fault: str
    case: str
    wrong: str


def lines(results: Iterable[Played]) -> Iterator[str]:
    """Yield the table."""
    played = list(results)
    yield "| part | killed | ENOSPC | EIO | cases tried | of all there are | bad |"
    yield "|---|---|---|---|---|---|---|"
    for area in dict.fromkeys(one["area"] for one in played):
        mine = [one for one in played if one["area"] == area]
        yield _row(area, mine, max(one["all"] for one in mine))
    totals = {one["area"]: one["all"] for one in played}
    yield _row("all", played, sum(totals.values()))


def _row(name: str, mine: list[Played], there_are: int) -> str:
    counts = Counter(one["fault"] for one in mine)
    bad = sum(bool(one["wrong"]) for one in mine)
    numbers = [*(counts[fault] for fault in FAULTS), len(mine), there_are, bad]
    return f"| {name} | {' | '.join(map(str, numbers))} |"


def replaced(text: str, table: Iterable[str]) -> str:
    """Return a document with this table between the marks."""
    before, after = text.split(BEGIN, maxsplit=1)[0], text.split(END)[1]
    return "\n".join([f"{before}{BEGIN}", "", *table, "", f"{END}{after}"])
