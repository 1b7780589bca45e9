"""Readings become the windows that a search over the whole stream finds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.settings import FieldSettings
from edge_agent.sources.source import SourceError
from edge_agent.sources.windows import Window, in_columns, time_axis_of
from fd_protocol.manifest import Task


def task(*shape, axis=None, dtype="float32", **more):
    return Task(("off", "on"), shape, dtype, time_axis=axis, **more)


def windows(stream, length, stride, gaps=frozenset(), gap_s=0.0, labels=None):
    """What `Window` makes of readings [r, r + 0.5]; before the readings in `gaps` there is a pause."""
    window = Window(task(2, length, axis=1), 2, stride=stride, gap_s=gap_s)
    now_s, made = 0.0, []
    for place, number in enumerate(stream):
        now_s += 100.0 if place in gaps else 1.0
        ready = window.push([number, number + 0.5], now_s, None if labels is None else labels[place], f"id-{place}")
        if ready is not None:
            made.append(ready)
    return made


def expected(stream, length, stride, gaps=frozenset()):
    """Brute force: cut the stream at every gap; in each piece, a window at every multiple of the stride."""
    bounds = [0, *sorted(gap for gap in gaps if 0 < gap < len(stream)), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(bounds)]
    return [
        [piece[start : start + length], [number + 0.5 for number in piece[start : start + length]]]
        for piece in pieces
        for start in range(0, len(piece) - length + 1, stride or length)
    ]


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 9), st.sets(st.integers(0, 40), max_size=4))
def test_windows_are_those_of_a_search_over_the_whole_stream(count, length, stride, gaps):
    stream = [float(number) for number in range(count)]
    made = windows(stream, length, stride, gaps, gap_s=10.0)
    assert [one.sample.tolist() for one in made] == expected(stream, length, stride, gaps)


def test_without_a_bound_pauses_do_not_matter():
    assert len(windows([1.0, 2.0, 3.0, 4.0], 2, 0, gaps={1, 3})) == 2


def test_time_runs_along_the_axis_that_the_task_names():
    for axis, shape in ((0, (3, 2)), (1, (2, 3))):
        window = Window(task(*shape, axis=axis), 2, stride=0, gap_s=0)
        ready = [window.push([float(n), n + 10.0], n) for n in range(3)][-1]
        rows = [[0, 10], [1, 11], [2, 12]]
        np.testing.assert_array_equal(ready.sample, rows if axis == 0 else np.transpose(rows))
        assert ready.sample.dtype == np.float32


def test_a_reading_alone_is_a_sample_where_the_task_has_no_window():
    window = Window(task(3), 3, stride=0, gap_s=0)
    assert window.push([1.0, 2.0, 3.0], 0.0, "on", 7).sample.tolist() == [1, 2, 3]


def test_a_window_has_the_label_on_which_its_readings_agree_and_the_last_id():
    made = windows([0.0] * 6, 2, 0, labels=["on", "on", "on", "off", None, "off"])
    assert [one.label for one in made] == ["on", None, None]
    assert [one.own_id for one in made] == ["id-1", "id-3", "id-5"]


@pytest.mark.parametrize(
    ("shape", "axis", "fields", "found"),
    [
        ((5,), None, 5, None),
        ((3, 50), None, 3, 1),
        ((50, 3), None, 3, 0),
        ((50,), None, 1, 0),
        ((3, 3), 0, 3, 0),
        ((1, 50), 1, 1, 1),
    ],
)
def test_the_axis_of_time_follows_from_the_fields_where_the_task_does_not_name_it(shape, axis, fields, found):
    assert time_axis_of(task(*shape, axis=axis), fields) == found


@pytest.mark.parametrize(
    ("shape", "axis", "fields", "complaint"),
    [
        ((3, 3), None, 3, "say `time_axis`"),
        ((3, 50), None, 4, "4 fields make no sample"),
        ((3, 50), 0, 3, "3 fields make no sample"),
    ],
)
def test_readings_that_make_no_sample_are_refused(shape, axis, fields, complaint):
    with pytest.raises(SourceError, match=complaint):
        time_axis_of(task(*shape, axis=axis), fields)


def test_fields_stand_in_the_order_of_the_columns():
    fields = [FieldSettings("ENERGY.Power"), FieldSettings("t", name="volts")]
    columns = task(2, columns=("volts", "Power"))
    assert [field.column for field in in_columns(fields, columns)] == ["volts", "Power"]
    assert in_columns(fields, task(2)) == fields
    with pytest.raises(SourceError, match=r"without a field: \['amps'\]; fields that are no column: \['Power'\]"):
        in_columns(fields, task(2, columns=("volts", "amps")))


def test_numbers_that_the_tasks_type_does_not_hold_are_refused_and_the_window_goes_on():
    window = Window(task(2, axis=0, dtype="uint8"), 1, stride=0, gap_s=0)
    assert window.push([3.0], 0.0) is None
    with pytest.raises(SourceError, match="do not fit samples of uint8"):
        window.push([2.5], 1.0)
    tokens = Task(("off", "on"), (1,), "int32", vocabulary=5)
    with pytest.raises(SourceError):
        Window(tokens, 1, stride=0, gap_s=0).push([5.0], 0.0)
    assert Window(tokens, 1, stride=0, gap_s=0).push([4.0], 0.0).sample.tolist() == [4]
    with pytest.raises(SourceError):
        Window(task(1), 1, stride=0, gap_s=0).push([1e300], 0.0)
    assert math.isnan(Window(task(1), 1, stride=0, gap_s=0).push([math.nan], 0.0).sample[0])
