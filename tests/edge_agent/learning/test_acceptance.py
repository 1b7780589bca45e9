from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.learning.acceptance import Score, is_acceptable
from fd_protocol.errors import InvalidValueError

SCORES = st.integers(1, 500).flatmap(lambda rows: st.builds(Score, st.integers(0, rows), st.just(rows)))


def test_weights_stay_within_two_standard_errors_of_the_release():
    release = Score(80, 100)
    assert release.standard_error == pytest.approx(0.0405, abs=1e-3)
    assert is_acceptable(Score(72, 100), release)
    assert not is_acceptable(Score(71, 100), release)


def test_a_perfect_release_does_not_refuse_a_single_new_mistake():
    assert is_acceptable(Score(19, 20), Score(20, 20))


def test_what_is_compared_is_the_release_and_not_the_best_so_far():
    release, best, later = Score(50, 100), Score(95, 100), Score(60, 100)
    assert is_acceptable(best, release)
    assert is_acceptable(later, release)


def test_without_hold_out_rows_everything_stays():
    assert is_acceptable(Score(0, 0), Score(0, 0))


@given(SCORES)
def test_the_release_itself_is_always_acceptable(score):
    assert is_acceptable(score, score)


def test_a_score_that_cannot_be_does_not_exist():
    for correct, rows in [(3, 2), (-1, 2)]:
        with pytest.raises(InvalidValueError):
            Score(correct, rows)
