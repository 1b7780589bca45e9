"""All rows, by where they are played, and the table of them in docs/security.md.

ground    a broker as it is shipped, with the victims on it
victims   the same, by the bytes of messages
site      the site of packages
board     the dashboard
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.attacks import clocks, entry, floods, payloads, topics, web
from tests.attacks.row import Attack

GROUND, VICTIMS, SITE, BOARD = "ground", "victims", "site", "board"
GROUPS: Mapping[str, tuple[str, tuple[Attack, ...]]] = {
    "Getting in": (GROUND, entry.ROWS),
    "The device's clock": (GROUND, clocks.ROWS),
    "Topics, by a certified device": (GROUND, topics.ROWS),
    "Connections and memory": (GROUND, floods.ROWS),
    "Messages": (VICTIMS, payloads.ROWS),
    "The packages' site": (SITE, web.SITE_ROWS),
    "The dashboard": (BOARD, web.BOARD_ROWS),
}
DOCS = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- attacks: python -m tests.attacks --write -->", "<!-- end of attacks -->"
NOTHING = "nothing"


def rows(kind: str) -> list[Attack]:
    return [row for place, found in GROUPS.values() if place == kind for row in found]


def lines(lost: Mapping[str, str] = {}) -> Iterator[str]:
    """Yield the table; `lost` says of an attack what it has cost, where that is not nothing."""
    for title, (_, found) in GROUPS.items():
        yield f"### {title}"
        yield ""
        yield "| attack | attempted | the attacker saw | the victim lost | control: it succeeds with |"
        yield "|---|---|---|---|---|"
        for row in found:
            cells = (row.name, row.attempted, row.sees, lost.get(row.name, NOTHING), row.control.says)
            yield f"| {' | '.join(cells)} |"
        yield ""


def section(text: str) -> str:
    """Return what stands between the marks in a document."""
    return text.split(BEGIN)[1].split(END, maxsplit=1)[0].strip()


def replaced(text: str, table: Iterable[str]) -> str:
    """Return a document with this table between the marks."""
    before, after = text.split(BEGIN, maxsplit=1)[0], text.split(END)[1]
    return "\n".join([f"{before}{BEGIN}", "", *table, f"{END}{after}"])
