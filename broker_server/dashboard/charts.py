"""Series and grids -> SVG, as text without script or style: colours come from the page's style sheet by class.

Every chart carries the table behind it: the page shows both. A gap in a series is NaN. A chart is drawn for about
400 pixels of width, so that its letters are the page's on a desk and on a phone.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from fd_protocol.identity import require

Written = Callable[[float], str]

WIDTH, HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
SHADE_EDGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)
"""Between the shades of a grid, `q0` to `q6`: narrow where most of a healthy fleet lies."""
_CELL_HEIGHT, _CELL_WIDTH, _SMALL_CELL = 26, 46, 15
_MOST_WRITTEN = 16
"""Columns of a grid whose cells are wide enough for their number."""
_LETTER = 6.6
"""Width of a letter of the label font, about."""


@dataclass(frozen=True, slots=True)
class Series:
    """A name and a value at each round of its chart; NaN where there is none."""

    name: str
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The last value that is known, or NaN."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


@dataclass(frozen=True, slots=True)
class LineChart:
    """Values over rounds.

    Attributes:
        title: what is shown.
        note: in words, what it is and what it is not.
        rounds: numbers of the rounds, ascending.
        series: at most four, so that each keeps a colour of its own.
        written: how a value is written.
        floor, ceiling: values that the axis never goes beyond; what lies beyond is drawn at the edge.
        holds: values that the axis shows whatever the series do, such as 0 for counts.
    """

    title: str
    note: str
    rounds: tuple[int, ...]
    series: tuple[Series, ...]
    written: Written
    floor: float = -math.inf
    ceiling: float = math.inf
    holds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.series) <= 4, "a chart has at most four series")
        require(all(len(s.values) == len(self.rounds) for s in self.series), "a series has a value for each round")

    @property
    def is_empty(self) -> bool:
        return all(math.isnan(value) for series in self.series for value in series.values)

    @property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Heads and rows, the last round first."""
        heads = ("round", *(series.name for series in self.series))
        rows = tuple(
            (str(number), *(self._text(series.values[index]) for series in self.series))
            for index, number in enumerate(self.rounds)
        )
        return heads, rows[::-1]

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Name and last value of each series."""
        return tuple((series.name, self._text(series.last)) for series in self.series)

    @property
    def svg(self) -> Markup:
        """The picture; an empty chart has none to show."""
        ticks = nice_ticks(*self._bounds())
        inner = [*self._grid(ticks), *self._lines(ticks), *self._bands()]
        said = ", ".join(f"{name} {value}" for name, value in self.legend)
        return _svg(WIDTH, HEIGHT, f"{self.title}; last: {said}", inner)

    def _text(self, value: float) -> str:
        return "\N{EN DASH}" if math.isnan(value) else self.written(value)

    def _bounds(self) -> tuple[float, float, float, float]:
        known = [self._within(value) for series in self.series for value in series.values if not math.isnan(value)]
        known += self.holds
        return min(known, default=0.0), max(known, default=1.0), self.floor, self.ceiling

    def _within(self, value: float) -> float:
        """Where a value is drawn: devices may tell what no share can be, and the axis does not go there."""
        return min(max(value, self.floor), self.ceiling)

    def _x(self, index: int) -> float:
        width = WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (index + 0.5) / max(1, len(self.rounds))

    def _grid(self, ticks: Sequence[float]) -> Iterator[Markup]:
        for tick, text in zip(ticks, _axis([self.written(tick) for tick in ticks]), strict=True):
            y = _y(tick, ticks)
            yield _tag("line", _class="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y)
            yield _label(text, _LEFT - 8, y + 4, "end")
        for index in _marked(self.rounds):
            yield _label(str(self.rounds[index]), self._x(index), HEIGHT - 6, "middle")

    def _lines(self, ticks: Sequence[float]) -> Iterator[Markup]:
        """A stroke for each run of known values; a dot for one alone, and for the last."""
        for order, series in enumerate(self.series):
            for run in _runs(series.values):
                places = [(_n(self._x(index)), _n(_y(self._within(series.values[index]), ticks))) for index in run]
                path = " L".join(f"{x} {y}" for x, y in places)
                yield _tag("path", _class=f"line s{order}", d=f"M{path}")
                if len(run) == 1 or run[-1] == len(series.values) - 1:
                    x, y = places[-1]
                    yield _tag("circle", _class=f"dot s{order}", cx=x, cy=y, r=4)

    def _bands(self) -> Iterator[Markup]:
        """A band a round, which tells its values to whoever points at it."""
        width = (WIDTH - _LEFT - _RIGHT) / max(1, len(self.rounds))
        for index, number in enumerate(self.rounds):
            values = ", ".join(f"{s.name} {self._text(s.values[index])}" for s in self.series)
            x = _LEFT + width * index
            title = _tag("title", f"round {number}: {values}")
            yield _tag("rect", title, _class="band", x=x, y=_TOP, width=width, height=HEIGHT - _TOP - _BOTTOM)


@dataclass(frozen=True, slots=True)
class Grid:
    """Shares of rows by columns, each in 0..1 or NaN.

    Attributes:
        title, note: what it is, and how to read it.
        corner: what the rows are.
        rows, columns: names.
        values: of each row, as many as columns.
    """

    title: str
    note: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        require(len(self.values) == len(self.rows), "a grid has values for each row")
        require(all(len(row) == len(self.columns) for row in self.values), "a row has a value for each column")

    @property
    def is_empty(self) -> bool:
        return not self.rows or not self.columns

    @property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        rows = zip(self.rows, self.values, strict=True)
        return (self.corner, *self.columns), tuple((name, *map(_percent, row)) for name, row in rows)

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def shades(self) -> tuple[str, ...]:
        """What each shade begins with, in percent."""
        return tuple(f"{100 * edge:.0f}" for edge in (0.0, *SHADE_EDGES))

    @property
    def svg(self) -> Markup:
        left = 12 + _LETTER * max(map(len, self.rows))
        longest = _LETTER * max(map(len, self.columns))
        is_small = len(self.columns) > _MOST_WRITTEN
        width, height = (_SMALL_CELL, _SMALL_CELL) if is_small else (_CELL_WIDTH, _CELL_HEIGHT)
        is_turned = longest > width
        top = 10 + longest if is_turned else 22.0
        inner = [*self._heads(left, top, width, is_turned=is_turned), *self._cells(left, top, width, height)]
        whole = (left + width * len(self.columns) + 2, top + height * len(self.rows) + 2)
        return _svg(*whole, f"{self.title}: {len(self.rows)} by {len(self.columns)}", inner, is_fixed=True)

    def _heads(self, left: float, top: float, width: float, *, is_turned: bool) -> Iterator[Markup]:
        for index, name in enumerate(self.columns):
            x = left + width * (index + 0.5)
            if is_turned:
                turn = f"translate({_n(x + 4)} {_n(top - 6)}) rotate(-90)"
                yield _tag("text", name, _class="label", transform=turn)
            else:
                yield _label(name, x, top - 7, "middle")

    def _cells(self, left: float, top: float, width: float, height: float) -> Iterator[Markup]:
        for r, (row, values) in enumerate(zip(self.rows, self.values, strict=True)):
            y = top + height * r
            yield _label(row, left - 8, y + height / 2 + 4, "end")
            for c, (column, value) in enumerate(zip(self.columns, values, strict=True)):
                x, shade = left + width * c, _shade(value)
                title = _tag("title", f"{row}, {column}: {_percent(value)}")
                yield _tag("rect", title, _class=f"cell {shade}", x=x, y=y, width=width - 2, height=height - 2, rx=3)
                if width == _CELL_WIDTH:
                    text = "" if math.isnan(value) else f"{100 * value:.0f}"
                    yield _label(text, x + width / 2 - 1, y + height / 2 + 3, "middle", f"value on-{shade}")


@dataclass(frozen=True, slots=True)
class Bars:
    """Lengths to compare, from zero, one a row.

    Attributes:
        title, note: as of the others.
        rows: name and value; the first is ours.
        written: how a value is written.
    """

    title: str
    note: str
    rows: tuple[tuple[str, float], ...]
    written: Written

    @property
    def is_empty(self) -> bool:
        return not self.rows

    @property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        return ("", "bytes"), tuple((name, f"{value:,.0f}") for name, value in self.rows)

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def svg(self) -> Markup:
        longest = max((value for _, value in self.rows), default=0.0) or 1.0
        inner: list[Markup] = []
        for index, (name, value) in enumerate(self.rows):
            y = 40 * index
            inner.append(_label(name, 0, y + 13, "start"))
            inner.append(_label(self.written(value), WIDTH, y + 13, "end", "label strong"))
            inner.append(_tag("rect", _class="rail", x=0, y=y + 20, width=WIDTH, height=8, rx=4))
            length = max(2.0, WIDTH * value / longest)
            style, rx = "bar s0" if index == 0 else "bar other", min(4.0, length / 2)
            inner.append(_tag("rect", _class=style, x=0, y=y + 20, width=length, height=8, rx=rx))
        said = ", ".join(f"{name} {self.written(value)}" for name, value in self.rows)
        return _svg(WIDTH, 40 * len(self.rows), f"{self.title}: {said}", inner)


def nice_ticks(low: float, high: float, floor: float = -math.inf, ceiling: float = math.inf) -> tuple[float, ...]:
    """Return three to six round numbers that hold `low` to `high`, and go beyond neither `floor` nor `ceiling`."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = max(abs(high) * 0.1, 0.05 * (ceiling - floor) if math.isfinite(ceiling - floor) else 1e-3)
        low, high = max(floor, low - pad), min(ceiling, high + pad)
    step = _nice_step((high - low) / 3)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [round(step * k, 12) for k in range(first, last + 1)]
    return tuple(min(max(tick, floor), ceiling) for tick in ticks)


def _runs(values: Sequence[float]) -> Iterator[list[int]]:
    """Yield the indices of each unbroken run of known values."""
    run: list[int] = []
    for index, value in enumerate(values):
        if not math.isnan(value):
            run.append(index)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _axis(texts: list[str]) -> list[str]:
    """On an axis `60 kB` reads better than `60.0 kB`, where no tick needs its digits."""
    short = [re.sub(r"\.0+(?=\D|$)", "", text) for text in texts]
    return texts if any("." in text for text in short) else short


def _nice_step(least: float) -> float:
    magnitude: float = 10.0 ** math.floor(math.log10(least))
    return next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= least * (1 - 1e-9))


def _y(value: float, ticks: Sequence[float]) -> float:
    height = HEIGHT - _TOP - _BOTTOM
    return _TOP + height * (1 - (value - ticks[0]) / (ticks[-1] - ticks[0]))


def _marked(rounds: Sequence[int], most: int = 6) -> list[int]:
    """Return the indices of round numbers to write under the axis: multiples of 1, 2, 5, 10 and so on."""
    steps = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    step = next(step for step in steps if sum(number % step == 0 for number in rounds) <= most)
    return [index for index, number in enumerate(rounds) if number % step == 0]


def _shade(value: float) -> str:
    return "none" if math.isnan(value) else f"q{bisect_right(SHADE_EDGES, value)}"


def _percent(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{100 * value:.1f}"


def _label(text: str, x: float, y: float, anchor: str, style: str = "label") -> Markup:
    return _tag("text", text, _class=style, x=x, y=y, text_anchor=anchor)


def _svg(width: float, height: float, said: str, inner: Sequence[Markup], *, is_fixed: bool = False) -> Markup:
    size: dict[str, float | str] = {"width": math.ceil(width), "height": math.ceil(height)} if is_fixed else {}
    box = f"0 0 {math.ceil(width)} {math.ceil(height)}"
    return _tag("svg", Markup("").join(inner), viewBox=box, role="img", aria_label=said, **size)


def _tag(name: str, content: Markup | str = "", **attributes: float | str) -> Markup:
    """Return an element; `_class` is `class`, an underscore in a name a dash."""
    parts = [f' {key.lstrip("_").replace("_", "-")}="{escape(_n(value))}"' for key, value in attributes.items()]
    return Markup(f"<{name}{''.join(parts)}>{escape(content)}</{name}>")  # noqa: S704 - every part is escaped


def _n(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if abs(value) < 1 else f"{round(value, 1):g}"
