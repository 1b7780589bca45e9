"""A keyed dataclass is its own wire format; what it does not know it ignores, what is wrong it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import pytest

from fd_protocol import cbor
from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.schema import decode, encode, from_item, keyed, to_item


class Colour(str, Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    number: int = keyed(1)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise InvalidValueError("a number is not negative")


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner = keyed(1)
    ratio: float = keyed(2, default=0.5)
    name: str = keyed(3, default="")
    data: bytes = keyed(4, default=b"")
    flag: bool = keyed(5, default=False)
    colour: Colour = keyed(6, default=Colour.RED)
    maybe: Inner | None = keyed(7, default=None)
    several: tuple[Inner, ...] = keyed(8, default=())
    named: Mapping[str, float] = field(default_factory=dict, metadata={"key": 9})


FULL = Outer(Inner(1), 2.0, "n", b"d", True, Colour.RED, Inner(2), (Inner(3), Inner(4)), {"a": 1.0})


def test_a_value_comes_back():
    assert from_item(Outer, to_item(FULL)) == FULL


def test_what_equals_its_default_is_not_written():
    assert to_item(Outer(Inner(1))) == {1: {1: 1}}
    assert from_item(Outer, {1: {1: 1}}) == Outer(Inner(1))


def test_unknown_keys_are_ignored_at_every_level():
    assert from_item(Outer, {1: {1: 1, 77: "new"}, 78: [1, {}], "note": None}) == Outer(Inner(1))


def test_equal_values_have_equal_items_whatever_numbers_they_were_made_of():
    item = to_item(Outer(Inner(1), 2, named={"a": 3}))
    assert item == to_item(Outer(Inner(1), 2.0, named={"a": 3.0}))
    assert (type(item[2]), type(item[9]["a"])) == (float, float)


@pytest.mark.parametrize("one", [1, True, 1.0])
def test_a_float_that_equals_its_default_is_not_written_whatever_number_it_was_made_of(one):
    assert encode(Unit(one)) == encode(Unit(1.0)) == cbor.encode({})
    assert encode(Unit(share=one)) == encode(Unit()) == cbor.encode({})
    assert encode(Unit(0, 0)) == encode(Unit(0.0, 0.0)) == encode(Unit(-0.0, -0.0))
    assert encode(Unit(maybe=one)) == encode(Unit(maybe=1.0)) == cbor.encode({3: 1.0})


@dataclass(frozen=True, slots=True)
class Unit:
    ratio: float = keyed(1, default=1.0)
    share: float = keyed(2, default=1)
    maybe: float | None = keyed(3, default=None)


def test_minus_zero_is_zero():
    assert str(to_item(Outer(Inner(1), -0.0))[2]) == "0.0"


def test_zero_and_false_are_not_the_same_default():
    assert to_item(Outer(Inner(1), flag=0)) == {1: {1: 1}, 5: 0}


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {},
        {1: 1},
        {1: {}},
        {1: {1: 1.0}},
        {1: {1: True}},
        {1: {1: "1"}},
        {1: {1: 1}, 2: 1},
        {1: {1: 1}, 2: float("nan")},
        {1: {1: 1}, 2: float("inf")},
        {1: {1: 1}, 3: b"n"},
        {1: {1: 1}, 4: "d"},
        {1: {1: 1}, 5: 1},
        {1: {1: 1}, 5: None},
        {1: {1: 1}, 6: 3},
        {1: {1: 1}, 7: 3},
        {1: {1: 1}, 8: {}},
        {1: {1: 1}, 8: [3]},
        {1: {1: 1}, 9: []},
        {1: {1: 1}, 9: {1: 1.0}},
        {1: {1: 1}, 9: {"a": "b"}},
    ],
)
def test_a_wrong_shape_is_malformed(item):
    with pytest.raises(DecodeError) as caught:
        from_item(Outer, item)
    assert caught.value.reason == "malformed"


def test_a_word_of_a_newer_peer_is_unsupported_and_not_malformed():
    with pytest.raises(DecodeError) as caught:
        from_item(Outer, {1: {1: 1}, 6: "blue"})
    assert caught.value.reason == "unsupported"


def test_a_value_that_refuses_to_exist_is_invalid():
    with pytest.raises(DecodeError, match="not negative") as caught:
        from_item(Outer, {1: {1: -1}})
    assert caught.value.reason == "invalid"


def test_two_fields_cannot_share_a_key():
    @dataclass(frozen=True)
    class Twice:
        one: int = keyed(1)
        two: int = keyed(1)

    with pytest.raises(TypeError, match="twice"):
        to_item(Twice(1, 2))


# Bytes.


def test_a_value_and_its_item_have_the_same_bytes():
    assert encode(FULL) == cbor.encode(to_item(FULL))
    assert decode(Outer, encode(FULL)) == FULL


@dataclass(frozen=True, slots=True)
class Unordered:
    late: int = keyed(300)
    early: int = keyed(3)
    middle: int = keyed(30)


def test_fields_stand_in_the_order_of_their_encoded_keys():
    value = Unordered(1, 2, 3)
    assert encode(value) == cbor.encode({3: 2, 30: 3, 300: 1})
    assert decode(Unordered, encode(value)) == value


def test_a_number_tells_what_a_map_is():
    data = encode(Inner(1), number=7)
    assert data == cbor.encode({0: 7, 1: 1})
    assert decode(Inner, data, number=7) == decode(Inner, data) == Inner(1)
    with pytest.raises(DecodeError) as caught:
        decode(Inner, data, number=8)
    assert caught.value.reason == "foreign_kind"


@pytest.mark.parametrize("item", [{1: 1}, {0: "7", 1: 1}, {0: 7}, [7]])
def test_a_map_without_its_number_or_with_nothing_else_is_malformed(item):
    with pytest.raises(DecodeError) as caught:
        decode(Inner, cbor.encode(item), number=7)
    assert caught.value.reason == "malformed"


# What is remembered of the last message.


def test_a_small_value_that_comes_again_is_the_same_object_and_a_large_one_is_not():
    data = [encode(Outer(Inner(number), data=b"x" * number)) for number in (1, 2, 1)]
    values = [decode(Outer, each) for each in data]
    assert [value.inner.number for value in values] == [1, 2, 1]
    assert decode(Outer, data[0]).inner is values[2].inner
    large = encode(Wide(Page("x" * 300)))
    assert decode(Wide, large).page is not decode(Wide, large).page


@dataclass(frozen=True, slots=True)
class Page:
    text: str = keyed(1)


@dataclass(frozen=True, slots=True)
class Wide:
    page: Page = keyed(1)
    second: Page | None = keyed(2, default=None)


def test_a_value_that_begins_like_the_last_one_is_another():
    for text in ("x", "xy", "x" * 23, "x" * 24, ""):
        assert decode(Wide, encode(Wide(Page("x"), Page(text)))) == Wide(Page("x"), Page(text))


def test_what_is_remembered_counts_against_the_limit_as_what_is_read():
    data = encode(Outer(Inner(1), several=(Inner(1),) * 5))
    least = next(limit for limit in range(100) if is_read(data, limit))
    decode(Outer, data)
    assert not is_read(data, least - 1)
    assert is_read(data, least)


def is_read(data, limit):
    try:
        decode(Outer, data, max_items=limit)
    except DecodeError:
        return False
    return True


def test_what_was_refused_is_refused_again():
    good, bad = encode(Outer(Inner(1))), cbor.encode({1: {1: -1}})
    for data in (bad, good, bad, bad):
        if data is good:
            assert decode(Outer, data) == Outer(Inner(1))
        else:
            with pytest.raises(DecodeError, match="not negative"):
                decode(Outer, data)
