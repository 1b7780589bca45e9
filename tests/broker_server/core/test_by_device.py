"""A map that never changes, whatever is made of it, and whose copies cost little."""

from hypothesis import given
from hypothesis import strategies as st

from broker_server.core.by_device import ByDevice
from broker_server.core.federation import Federation, Presence, from_snapshot, to_snapshot

names = st.sampled_from([f"dev-{number}" for number in range(40)])
entries = st.dictionaries(names, st.integers(), max_size=12)


@given(entries, st.lists(entries | names, max_size=6))
def test_it_says_what_a_dictionary_says_and_earlier_copies_stay_as_they_were(first, changes):
    history = [(ByDevice(first), dict(first))]
    for change in changes:
        map_, told = history[-1]
        if isinstance(change, str):
            history.append((map_.without(change), {name: value for name, value in told.items() if name != change}))
        else:
            history.append((map_.changed(change), {**told, **change}))
    for map_, told in history:
        assert dict(map_.items()) == told
        assert (len(map_), set(map_)) == (len(told), set(told))
        assert all(map_.get(f"dev-{number}", None) == told.get(f"dev-{number}", None) for number in range(40))


@given(entries, entries)
def test_it_equals_any_map_with_the_same_entries_and_no_other(one, other):
    assert (ByDevice(one) == ByDevice(other)) == (one == other)
    assert (ByDevice(one) == other) == (one == other)


def test_a_change_copies_what_it_touches_and_shares_the_rest():
    many = ByDevice({f"dev-{number}": number for number in range(10_000)})
    changed = many.changed({"dev-7": 0}).without("dev-8")
    copied = [after for before, after in zip(many._buckets, changed._buckets, strict=True) if after is not before]
    assert len(copied) <= 2
    assert sum(map(len, copied)) < 200


def test_it_comes_back_from_a_snapshot():
    state = Federation(online=ByDevice({"a": Presence(1), "b": Presence(2, ("u8-sqrt",))}))
    again = from_snapshot(to_snapshot(state))
    assert again == state
    assert isinstance(again.online, ByDevice)
