"""What is due about a certificate, by rule."""

import itertools
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.enrolment.renewal import Due, Life, due, is_late, renew_at

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIFE = Life(NOW, NOW + timedelta(days=30))


@given(st.text(max_size=20), st.integers(0, 10**6), st.integers(1, 365))
def test_a_certificate_is_renewed_between_two_thirds_and_three_quarters_of_its_life(device, at_s, days):
    begin = NOW + timedelta(seconds=at_s)
    life = Life(begin, begin + timedelta(days=days))
    share = (renew_at(life, device) - begin) / timedelta(days=days)
    assert 2 / 3 - 1e-6 <= share <= 3 / 4 + 1e-6
    assert renew_at(life, device) == renew_at(life, device), "a restart keeps the day"


def test_devices_that_enrolled_in_one_moment_do_not_come_back_in_one():
    times = sorted(renew_at(LIFE, f"dev-{number}") for number in range(1000))
    assert times[-1] - times[0] > timedelta(days=2.4)
    assert max(b - a for a, b in itertools.pairwise(times)) < timedelta(hours=1)


def test_what_is_due():
    day = renew_at(LIFE, "dev-1")
    assert due(None, "dev-1", NOW, has_new_token=False) is Due.ENROL
    assert due(LIFE, "dev-1", NOW, has_new_token=False) is Due.NOTHING
    assert due(LIFE, "dev-1", NOW, has_new_token=True) is Due.ENROL
    assert due(LIFE, "dev-1", day - timedelta(seconds=1), has_new_token=False) is Due.NOTHING
    assert due(LIFE, "dev-1", day, has_new_token=False) is Due.RENEW
    assert due(LIFE, "dev-1", LIFE.end + timedelta(days=100), has_new_token=False) is Due.RENEW
    assert due(LIFE, "dev-1", datetime(1970, 1, 1, tzinfo=timezone.utc), has_new_token=False) is Due.NOTHING


def test_only_what_is_about_to_end_is_worth_an_alarm():
    assert not is_late(LIFE, NOW + timedelta(days=26))
    assert is_late(LIFE, NOW + timedelta(days=26.5))
