"""Parameters lie in theta one after the other, each once, without gaps."""

import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.layout import ParameterSlot, ThetaLayout
from fd_protocol.schema import from_item, to_item

LAYOUT = ThetaLayout.of([("w", (3, 2)), ("b", (2,)), ("scale", ())])


def test_parameters_lie_end_to_end():
    assert [(slot.name, slot.offset, slot.end) for slot in LAYOUT.slots] == [("w", 0, 6), ("b", 6, 8), ("scale", 8, 9)]
    assert LAYOUT.size == 9


def test_a_layout_comes_back():
    assert from_item(ThetaLayout, to_item(LAYOUT)) == LAYOUT


@pytest.mark.parametrize(
    "slots",
    [
        (),
        (("w", 0, (2,)), ("w", 2, (2,))),
        (("w", 0, (2,)), ("b", 3, (2,))),
        (("w", 0, (2,)), ("b", 1, (2,))),
        (("w", 1, (2,)),),
    ],
    ids=["nothing", "a name twice", "a gap", "an overlap", "not from 0"],
)
def test_a_layout_with_holes_cannot_exist(slots):
    with pytest.raises(InvalidValueError):
        ThetaLayout(tuple(ParameterSlot(*slot) for slot in slots))


@pytest.mark.parametrize(
    ("name", "offset", "shape"),
    [
        ("", 0, (1,)),
        ("w", -1, (1,)),
        ("w", 0, (0,)),
        ("w", 0, (-2, -2)),
        ("w", 0, (1,) * 9),
        ("w", 0, (2**28 + 1,)),
        ("w", 0, (2**14, 2**14, 2)),
    ],
    ids=["no name", "offset", "zero", "negative", "9 extents", "long", "large"],
)
def test_a_parameter_without_place_cannot_exist(name, offset, shape):
    with pytest.raises(InvalidValueError):
        ParameterSlot(name, offset, shape)


def test_a_parameter_has_8_extents_and_2_to_28_elements_at_most():
    assert ParameterSlot("w", 0, (1, 2) * 4).size == 16
    assert ParameterSlot("w", 0, (2**14, 2**14)).size == 2**28


def test_numbers_of_any_length_are_refused_in_a_short_line():
    giant = 10**5000  # longer than Python writes out
    for shape in ((giant,), (9,) * 160_000):
        with pytest.raises(InvalidValueError) as caught:
            ParameterSlot("w", 0, shape)
        assert len(str(caught.value)) < 200
    with pytest.raises(InvalidValueError, match="'w' does not start at 0"):
        ThetaLayout((ParameterSlot("w", giant, (2,)),))
