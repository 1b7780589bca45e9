"""The table of a comparison: a row a figure, a column a system, and which of the two is better by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FLOWER, OURS = "Flower", "fedistill"
THEIRS = 2
"""Of the columns, Flower's: the first."""
Good = Literal["less", "more", ""]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of every system; None where there is none.

    Attributes:
        what: with its unit.
        values: Flower's first, then ours.
        good: which is better, `less` or `more`; empty = a matter of taste.
        form: of a number.
    """

    what: str
    values: Sequence[float | str | None]
    good: Good = "less"
    form: str = ",.0f"

    @property
    def better(self) -> str:
        """Return who is better, by the best of each side; a tie, and words, are nobody's."""
        numbers = [[value for value in side if isinstance(value, int | float)] for side in self._sides]
        if not self.good or not all(numbers):
            return ""
        best = min if self.good == "less" else max
        theirs, ours = map(best, numbers)
        if format(theirs, self.form) == format(ours, self.form):
            return "the same"
        return FLOWER if theirs == best(theirs, ours) else OURS

    @property
    def _sides(self) -> tuple[Sequence[float | str | None], Sequence[float | str | None]]:
        return self.values[:THEIRS], self.values[THEIRS:]

    def __str__(self) -> str:
        return f"| {self.what} | {' | '.join(map(self._cell, self.values))} | {self.better} |"

    def _cell(self, value: float | str | None) -> str:
        if value is None:
            return "-"
        return value if isinstance(value, str) else format(value, self.form)


def table(systems: Sequence[str], parts: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Yield the lines of a table; the rows of each part under its name."""
    yield f"| | {' | '.join(systems)} | better |"
    yield f"|---|{'---|' * len(systems)}---|"
    for name, rows in parts.items():
        yield f"| **{name}** |{' |' * (len(systems) + 1)}"
        yield from map(str, rows)


def curves(rounds: Sequence[int], accuracies: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield the lines of a table of accuracies in percent after some rounds; some are not played that far."""
    yield f"| accuracy on test, %, after round | {' | '.join(map(str, rounds))} |"
    yield f"|---|{'---|' * len(rounds)}"
    for name, values in accuracies.items():
        cells = (f"{100 * values[number - 1]:.1f}" if number <= len(values) else "-" for number in rounds)
        yield f"| {name} | {' | '.join(cells)} |"
