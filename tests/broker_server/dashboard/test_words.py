"""Values are short and in the reader's units, and what is not known is a dash."""

import pytest

from broker_server.dashboard import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (26_400, "26.4 kB"), (999_600, "1.0 MB"), (1 << 20, "1.0 MB")],
)
def test_sizes(value, text):
    assert words.size(value) == text.replace(" ", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (93, "1 min 33 s"), (7_200, "2 h"), (90_061, "1 d 1 h")]
)
def test_spans_have_two_units_at_most(seconds, text):
    assert words.span(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


def test_ages_and_moments():
    assert words.ago(0, 5_000) == "never"
    assert words.ago(4_500, 5_000) == "now"
    assert words.ago(2_000, 5_000).endswith("ago")
    assert words.moment(0) == words.UNKNOWN
    assert words.moment(1_700_000_000_000) == "2023-11-14 22:13:20"
    assert words.iso(1_700_000_000_000) == "2023-11-14T22:13:20Z"


def test_names_are_in_the_order_in_which_people_count():
    names = ["press-10", "press-2", "oven", "press-2b", "press-1"]
    assert sorted(names, key=words.natural) == ["oven", "press-1", "press-2", "press-2b", "press-10"]


def test_what_is_not_known_is_a_dash():
    for word in (words.percent, words.number, words.count, words.size):
        assert word(None) == word(float("nan")) == words.UNKNOWN
    assert words.short(b"") == words.UNKNOWN


def test_numbers_of_which_nothing_is_known():
    assert (words.plain(40.0), words.plain(3.08912), words.plain(12_345.0)) == ("40", "3.089", "12,345")
