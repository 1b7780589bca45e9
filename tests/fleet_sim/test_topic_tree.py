"""Topics and filters find each other as MQTT says, in both directions alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_sim.bus.topic_tree import TopicTree

LEVELS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)


def matches(topic, pattern):
    """MQTT 5, section 4.7, as plainly as it can be said."""
    levels, wanted = topic.split("/"), pattern.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(levels) == len(wanted) and all(w in ("+", level) for level, w in zip(levels, wanted, strict=True))


@st.composite
def filters(draw):
    levels = draw(st.lists(st.sampled_from("ab+"), min_size=0, max_size=4))
    return "/".join(levels + ["#"] * (not levels or draw(st.booleans())))


def tree_of(paths):
    tree = TopicTree()
    for path in paths:
        tree.add(path, path)
    return tree


@pytest.mark.parametrize(
    ("topic", "pattern", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/+", True),
        ("a/b/c", "a/+", False),
        ("a", "a/#", True),
        ("a/b/c", "a/#", True),
        ("b", "a/#", False),
        ("a/b", "#", True),
    ],
)
def test_filters_match_as_mqtt_says(topic, pattern, fits):
    assert matches(topic, pattern) is fits
    assert bool(list(tree_of([pattern]).along(topic))) is fits
    assert bool(list(tree_of([topic]).under(pattern))) is fits


@given(topic=LEVELS.map("/".join), patterns=st.sets(filters(), max_size=8))
def test_along_a_topic_lie_all_filters_that_cover_it_and_no_others(topic, patterns):
    assert sorted(tree_of(patterns).along(topic)) == sorted(p for p in patterns if matches(topic, p))


@given(pattern=filters(), topics=st.sets(LEVELS.map("/".join), max_size=8))
def test_under_a_filter_lie_all_topics_that_it_covers_and_no_others(pattern, topics):
    assert sorted(tree_of(topics).under(pattern)) == sorted(t for t in topics if matches(t, pattern))


@given(patterns=st.sets(filters(), max_size=8), data=st.data())
def test_what_was_removed_is_found_no_more_and_the_rest_still_is(patterns, data):
    tree = tree_of(patterns)
    gone = data.draw(st.sets(st.sampled_from(sorted(patterns)))) if patterns else set()
    for pattern in gone:
        tree.remove(pattern, pattern)
    topic = data.draw(LEVELS.map("/".join))
    assert sorted(tree.along(topic)) == sorted(p for p in patterns - gone if matches(topic, p))


def test_an_emptied_tree_holds_nothing():
    tree = tree_of(["a/b/c", "a/b"])
    tree.remove("a/b/c", "a/b/c")
    tree.remove("a/b", "a/b")
    assert not tree._root.below
