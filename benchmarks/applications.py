"""What became of the goals of each application, side by side: the table of docs/applications.md.

    python benchmarks/applications.py          writes the section of docs/applications.md

Nothing is played: goals and what was measured are those that each `examples/NAME/run.py` left in its README.md. Where
nothing was played yet, that is what is said.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fleet_sim.tables import publish, table_of

ROOT = Path(__file__).parent.parent
EXAMPLES, PAGE = ROOT / "examples", ROOT / "docs" / "applications.md"
COMMAND = "python benchmarks/applications.py"
GOAL = "| goal | measured |"


def main() -> None:
    text = side_by_side(EXAMPLES)
    sys.stdout.write(f"{text}\n")
    publish("goals", COMMAND, text, PAGE)


def side_by_side(examples: Path) -> str:
    """Return the goals of every example that has a table to write, by name."""
    rows = [row for page in sorted(examples.glob("*/README.md")) for row in rows_of(page)]
    return table_of(["application", "goal", "measured", ""], rows)


def rows_of(page: Path) -> Iterator[list[str]]:
    """Yield the goals of an example, what was measured, and the verdict; one line where nothing was played."""
    name = page.parent.name
    link = f"[{name}](../examples/{name}/README.md)"
    section = _section(page.read_text("utf-8"), f"table: {name}")
    if section is None:
        return
    head, *lines = next((part.splitlines() for part in section.split("\n\n") if part.startswith(GOAL)), [""])
    if not head:
        yield [link, "", "not played yet", ""]
    for line in lines[1:]:
        yield [link, *(cell.strip() for cell in line.strip("|").split("|"))]


def _section(text: str, name: str) -> str | None:
    """Return what stands between the marks of a section; None: there are none."""
    _, begin, rest = text.partition(f"<!-- begin {name} -->")
    return rest.partition(f"<!-- end {name} -->")[0] if begin else None


if __name__ == "__main__":
    main()
