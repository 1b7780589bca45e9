from __future__ import annotations

import pytest

from fd_runtime.links.link import Hindrance, LinkSettings
from fd_runtime.links.reconnecting import Retries

SETTINGS = LinkSettings("a", reconnect_min_s=1.0, reconnect_max_s=60.0, stable_s=60.0)


def longest(_low, high):
    return high


def shortest(low, _high):
    return low


def waits(retries, kind, ups_s):
    return [retries.after(kind, up_s)[1] for up_s in ups_s]


def test_the_waits_for_a_broker_that_is_away_double_up_to_the_longest():
    retries = Retries(SETTINGS, longest)
    assert waits(retries, Hindrance.UNREACHABLE, [0] * 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_any_of_these_waits_may_be_none_at_all():
    retries = Retries(SETTINGS, shortest)
    assert set(waits(retries, Hindrance.UNREACHABLE, [0] * 8)) == {0.0}


def test_only_a_connection_that_lasted_makes_the_next_wait_a_first_one():
    retries = Retries(SETTINGS, longest)
    assert waits(retries, Hindrance.LOST, (5, 5, 59, 61, 5)) == [1, 2, 4, 1, 2]


def test_a_client_whose_name_another_uses_stays_away_for_minutes_and_longer_each_time():
    least, most = Retries(SETTINGS, shortest), Retries(SETTINGS, longest)
    ups_s = (3600, 300, 600, 1200, 2400)
    assert waits(least, Hindrance.TAKEN_OVER, ups_s) == [150, 300, 600, 1200, 1800]
    assert waits(most, Hindrance.TAKEN_OVER, ups_s) == [300, 600, 1200, 2400, 3600]


def test_a_day_of_peace_ends_the_quarrel():
    retries = Retries(SETTINGS, longest)
    waits(retries, Hindrance.TAKEN_OVER, [10])
    waits(retries, Hindrance.LOST, [90_000])
    assert waits(retries, Hindrance.TAKEN_OVER, [10]) == [300]


def test_a_broker_that_hangs_up_again_and_again_without_a_word_counts_as_having_another_of_our_name():
    retries = Retries(SETTINGS, longest)
    kinds = [retries.after(Hindrance.HUNG_UP, 10)[0] for _ in range(6)]
    assert kinds == [Hindrance.HUNG_UP] * 4 + [Hindrance.TAKEN_OVER] * 2


@pytest.mark.parametrize("between", [(Hindrance.UNREACHABLE, 0), (Hindrance.HUNG_UP, 61), (Hindrance.LOST, 10)])
def test_a_broker_that_was_away_or_stayed_in_between_is_no_such_sign(between):
    retries = Retries(SETTINGS, longest)
    for _ in range(3):
        assert [retries.after(Hindrance.HUNG_UP, 10)[0] for _ in range(4)] == [Hindrance.HUNG_UP] * 4
        retries.after(*between)


def test_a_clock_that_is_set_is_noticed_within_a_quarter_of_a_minute_however_long_it_took():
    assert max(waits(Retries(SETTINGS, longest), Hindrance.CLOCK, [0] * 200)) == 15


@pytest.mark.parametrize("kind", Hindrance)
def test_no_wait_is_longer_than_an_hour(kind):
    assert max(waits(Retries(SETTINGS, longest), kind, [0] * 100)) <= 3600
