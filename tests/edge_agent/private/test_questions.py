"""A person is asked about the least sure rows, each once, and about one of a burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.private.questions import Candidate, in_order, margin_of, places_for

MINUTE = 60_000


def row(margin, at_ms=0, source="", *, is_shown=False):
    return Candidate(margin, at_ms, source or f"source-{margin}-{at_ms}", is_shown)


def test_with_room_every_row_is_in_question():
    assert places_for(row(0.9), {1: row(0.1)}, 2, MINUTE) == []


def test_without_room_the_surest_gives_way_to_a_less_sure_one():
    present = {1: row(0.5), 2: row(0.3), 3: row(0.4)}
    assert places_for(row(0.45), present, 3, MINUTE) == [1]
    assert places_for(row(0.6), present, 3, MINUTE) is None
    assert places_for(row(0.5, 1), present, 3, MINUTE) is None


def test_a_row_that_someone_looks_at_never_gives_way():
    present = {1: row(0.9, is_shown=True), 2: row(0.3)}
    assert places_for(row(0.2), present, 2, MINUTE) == [2]
    assert places_for(row(0.0), {1: row(0.9, is_shown=True)}, 1, MINUTE) is None


def test_of_a_burst_only_the_least_sure_is_asked_about():
    present = {1: row(0.5, 0, "cam"), 2: row(0.1, 0, "other")}
    assert places_for(row(0.6, 59_999, "cam"), present, 9, MINUTE) is None
    assert places_for(row(0.4, 59_999, "cam"), present, 9, MINUTE) == [1]
    assert places_for(row(0.6, MINUTE, "cam"), present, 9, MINUTE) == []
    assert places_for(row(0.2, 0, "cam"), {1: row(0.5, 0, "cam", is_shown=True)}, 9, MINUTE) is None


def test_one_row_between_two_bursts_takes_the_place_of_both_or_of_none():
    present = {1: row(0.5, 0, "cam"), 2: row(0.3, 90_000, "cam")}
    assert places_for(row(0.2, 45_000, "cam"), present, 9, MINUTE) == [1, 2]
    assert places_for(row(0.4, 45_000, "cam"), present, 9, MINUTE) is None


def test_those_already_shown_are_asked_first_then_the_least_sure():
    present = {1: row(0.5), 2: row(0.1), 3: row(0.9, is_shown=True), 4: row(0.1, 5)}
    assert in_order(present) == [3, 2, 4, 1]


def test_a_confidence_alone_is_the_margin_of_two_classes():
    assert margin_of(0.75, None) == 0.75 - 0.25
    assert margin_of(0.5, 0.2) == 0.2


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ab"), st.integers(0, 20)), max_size=60))
def test_whatever_comes_the_queue_is_what_a_search_over_all_rows_would_choose_without_bursts(rows):
    """Brute force: with no spacing the queue holds the `capacity` smallest margins of all that came."""
    present = {}
    for number, (margin, source, minute) in enumerate(rows):
        places = places_for(Candidate(margin, minute * MINUTE, source), present, 5, 0)
        if places is not None:
            for gone in places:
                del present[gone]
            present[number] = Candidate(margin, minute * MINUTE, source)
    assert sorted(one.margin for one in present.values()) == sorted(margin for margin, *_ in rows)[:5]


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ab"), st.integers(0, 20)), max_size=60))
def test_whatever_comes_two_questions_of_a_source_are_never_of_one_burst(rows):
    present = {}
    for number, (margin, source, minute) in enumerate(rows):
        candidate = Candidate(margin, minute * MINUTE, source)
        places = places_for(candidate, present, 5, 3 * MINUTE)
        if places is not None:
            for gone in places:
                del present[gone]
            present[number] = candidate
        assert len(present) <= 5
        for one in present.values():
            near = [other for other in present.values() if other.source == one.source and other is not one]
            assert all(abs(one.at_ms - other.at_ms) >= 3 * MINUTE for other in near)
