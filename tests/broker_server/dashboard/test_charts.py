"""Pictures tell what the table behind them tells, and round numbers stand at their axes."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.dashboard.charts import Bars, Grid, LineChart, Series, nice_ticks
from fd_protocol.errors import InvalidValueError

NAN = math.nan
finite = st.floats(-1e9, 1e9).map(lambda value: round(value, 6))


def chart(*values, **changes):
    series = tuple(Series(f"s{k}", each) for k, each in enumerate(values))
    rounds = tuple(range(1, len(values[0]) + 1))
    return LineChart("title", "note", rounds, series, lambda value: f"{value:.1f}", **changes)


@given(finite, finite)
def test_ticks_hold_all_values_between_them(one, other):
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    hair = 1e-6 * max(high - low, abs(high), 1e-6)
    assert ticks[0] <= low + hair
    assert ticks[-1] >= high - hair
    assert 2 <= len(ticks) <= 6
    assert list(ticks) == sorted(set(ticks))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_axis_of_a_share_never_leaves_0_to_1(one, other):
    ticks = nice_ticks(*sorted((one, other)), 0.0, 1.0)
    assert 0 <= ticks[0] < ticks[-1] <= 1


def test_a_share_that_stays_at_zero_has_an_axis_that_can_be_read():
    assert [f"{tick:.0%}" for tick in nice_ticks(0.0, 0.0, 0.0, 1.0)] == ["0%", "2%", "4%", "6%"]


@pytest.mark.parametrize("told", [1.2, -1.0, 1.7e308, -1.7e308, math.inf, -math.inf])
def test_a_value_beyond_what_it_can_be_is_drawn_at_the_edge_and_told_as_it_is(told):
    drawn = chart((0.5, told), floor=0.0, ceiling=1.0)
    at_the_edge = chart((0.5, min(max(told, 0.0), 1.0)), floor=0.0, ceiling=1.0)
    lines = [re.findall(r' d="([^"]+)"', each.svg) for each in (drawn, at_the_edge)]
    assert lines[0] == lines[1] != []
    assert drawn.table[1][0] == ("2", f"{told:.1f}")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5))
def test_whatever_devices_tell_of_a_share_can_be_drawn(values):
    svg = chart(tuple(values), floor=0.0, ceiling=1.0).svg
    places = [float(place) for path in re.findall(r' d="M([^"]+)"', svg) for place in re.split(r"[ L]+", path)]
    assert all(0 <= place <= 400 for place in places)


def test_a_line_breaks_where_nothing_is_known():
    assert chart((0.1, 0.2, NAN, 0.4, 0.5)).svg.count('class="line s0"') == 2


def test_a_value_alone_is_a_dot_and_so_is_the_last():
    assert chart((0.1, NAN, 0.3, 0.4)).svg.count("<circle") == 2


def test_the_table_has_every_value_the_last_round_first():
    heads, rows = chart((0.1, NAN), (2.0, 3.0)).table
    assert heads == ("round", "s0", "s1")
    assert rows == (("2", "\N{EN DASH}", "3.0"), ("1", "0.1", "2.0"))


def test_the_picture_tells_its_values_to_those_who_point_and_to_those_who_listen():
    svg = chart((0.1, 0.2)).svg
    assert "<title>round 2: s0 0.2</title>" in svg
    assert 'aria-label="title; last: s0 0.2"' in svg


def test_a_chart_of_nothing_is_empty():
    assert chart((NAN, NAN)).is_empty
    assert not chart((NAN, 0.0)).is_empty


def test_counts_begin_at_zero_where_the_chart_says_so():
    assert ">0<" in chart((9.0, 10.0), floor=0.0, holds=(0.0,)).svg
    assert ">0<" not in chart((9.0, 10.0)).svg


def test_a_hundred_rounds_have_a_few_round_numbers_under_them():
    texts = re.findall(r'text-anchor="middle">(\d+)<', chart(tuple(float(k) for k in range(100))).svg)
    assert texts == ["20", "40", "60", "80", "100"]


def test_names_are_text_and_never_markup():
    svg = LineChart("<i>", "", (1,), (Series('"><b>', (1.0,)),), str).svg
    assert "<i>" not in svg
    assert "<b>" not in svg


@pytest.mark.parametrize(
    "make",
    [
        lambda: chart(*[(1.0,)] * 5),
        lambda: LineChart("", "", (1, 2), (Series("a", (1.0,)),), str),
        lambda: Grid("", "", "", ("a",), ("x",), ()),
        lambda: Grid("", "", "", ("a",), ("x",), ((1.0, 2.0),)),
    ],
)
def test_charts_that_do_not_fit_themselves_do_not_exist(make):
    with pytest.raises(InvalidValueError):
        make()


def test_a_grid_shades_by_share_and_writes_the_number():
    grid = Grid("t", "n", "device", ("a", "b"), ("x", "y"), ((0.0, 1.0), (0.07, NAN)))
    svg = grid.svg
    assert re.findall(r'class="cell (\w+)"', svg) == ["q0", "q6", "q2", "none"]
    assert re.findall(r'class="value[^>]*>(\d*)<', svg) == ["0", "100", "7", ""]
    assert grid.table == (("device", "x", "y"), (("a", "0.0", "100.0"), ("b", "7.0", "\N{EN DASH}")))


def test_a_large_grid_tells_its_numbers_by_title_alone():
    names = tuple(f"device-{k}" for k in range(30))
    svg = Grid("t", "n", "device", names, names, ((0.5,) * 30,) * 30).svg
    assert svg.count("<title>device-") == 900
    assert 'class="value' not in svg
    assert "rotate(-90)" in svg


def test_bars_are_as_long_as_their_values():
    svg = Bars("t", "n", (("ours", 1_000.0), ("theirs", 4_000.0)), str).svg
    assert re.findall(r'class="bar[^"]*" x="0" y="[\d.]+" width="([\d.]+)"', svg) == ["100", "400"]
