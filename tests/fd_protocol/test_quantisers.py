"""Each codec keeps its formula's promises, and its checker refuses what it cannot have made."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.messages import Codec
from fd_protocol.payload import Codes, decode_body, encode_body, quantise
from fd_protocol.quantisers import ONE, TOP_1_REST, _sums_of_squares, quantiser
from fd_protocol.soft_labels import SoftLabels

LEVELS = {Codec.U8_SQRT: 255, Codec.U4_SQRT: 15}


@st.composite
def soft_labels(draw, most_classes=300):
    """Softmaxes from flat to one-hot, with exact ties and exact zeros among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 8)), draw(st.integers(2, most_classes))
    logits = rng.standard_normal(shape) * 10.0 ** draw(st.integers(-3, 2))
    if draw(st.booleans()):
        logits = np.rint(logits)
    return SoftLabels.of(logits, draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])))


@st.composite
def coded(draw):
    labels = draw(soft_labels())
    classes = labels.probabilities.shape[1]
    codecs = [codec for codec in Codec if codec is not Codec.U4_SQRT or classes <= 256]
    codec = draw(st.sampled_from(codecs))
    top_k = draw(st.integers(1, classes - 1)) if codec.names_k else 0
    return labels, quantise(labels, codec, top_k)


@pytest.mark.parametrize("classes", [2, 3, 257, 1 << 16])
def test_the_checker_adds_exactly_however_many_classes_a_row_has(classes):
    rows = np.full((3, classes), 255, np.uint8)
    rows[1, 0], rows[2] = 254, 0
    expected = [sum(int(code) ** 2 for code in row) for row in rows]
    assert _sums_of_squares(rows).tolist() == expected


@given(coded())
def test_what_a_quantiser_makes_its_checker_takes(labels_and_codes):
    _, codes = labels_and_codes
    quantiser(codes.codec, codes.classes, codes.top_k).check(codes.array)


@given(coded())
def test_integers_are_whole_probabilities(labels_and_codes):
    _, codes = labels_and_codes
    integers = codes.integers()
    assert (integers.dtype, integers.shape) == (np.int64, (len(codes), codes.classes))
    assert integers.min() >= 0
    assert np.abs(integers.sum(axis=1) - ONE).max() <= codes.classes / 2


@given(coded())
def test_decoded_probabilities_are_soft_labels(labels_and_codes):
    labels, codes = labels_and_codes
    SoftLabels(codes.probabilities(), labels.temperature)


@given(soft_labels(256), st.sampled_from(sorted(LEVELS)))
def test_square_roots_are_half_a_step_off_at_most(labels, codec):
    levels = LEVELS[codec]
    codes = quantise(labels, codec).array
    assert np.abs(np.sqrt(labels.probabilities) - codes / levels).max() <= 0.5 / levels + 1e-6


@given(soft_labels(256), st.sampled_from(sorted(LEVELS)))
def test_square_roots_lose_no_more_than_the_bound(labels, codec):
    levels, codes, p = LEVELS[codec], quantise(labels, codec), labels.probabilities.astype(np.float64)
    squares = codes.array.astype(np.float64) ** 2 / levels**2
    total = squares.sum(axis=1)
    decoded = squares / total[:, None]
    seen = decoded > 0  # and there p > 0 too
    loss = np.where(seen, decoded * np.log(np.where(seen, decoded, 1) / np.where(seen, p, 1)), 0).sum(axis=1)
    assert (loss <= 2.25 * codes.classes / (levels**2 * total) + 1e-5).all()


@given(soft_labels(256), st.sampled_from([Codec.F16, Codec.U8_SQRT, Codec.U4_SQRT, Codec.TOP_1]))
def test_the_likeliest_class_stays_among_the_likeliest(labels, codec):
    integers = quantise(labels, codec).integers()
    best = labels.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(np.take_along_axis(integers, best[:, None], axis=1)[:, 0], integers.max(axis=1))


@given(soft_labels())
def test_f16_keeps_eleven_bits(labels):
    decoded = quantise(labels, Codec.F16).probabilities()
    classes = labels.probabilities.shape[1]
    assert np.abs(decoded - labels.probabilities).max() <= 2.0**-10 + classes * 2.0**-20


@pytest.mark.parametrize("classes", [2, 1000, 30_000, 1 << 16])
def test_f16_enters_a_consensus_as_the_nearest_integers_however_many_classes_share_the_rest(classes):
    row = np.full((1, classes), 0.9 / (classes - 1), np.float32)
    row[0, 0] = 0.1
    codes = quantise(SoftLabels(row, 1.0), Codec.F16)
    values = [Fraction(float(value)) for value in row[0].astype(np.float16)]
    total = sum(values)
    nearest = {value: math.floor(value * ONE / total + Fraction(1, 2)) for value in set(values)}
    assert codes.integers()[0].tolist() == [nearest[value] for value in values]


def test_no_finite_value_of_f16_overflows():
    largest = np.full((1, 1 << 16), np.finfo(np.float16).max, np.float16).view(np.uint16)
    codes = Codes(Codec.F16, 1 << 16, np.concatenate([largest >> 8, largest & 255], axis=1).astype(np.uint8))
    assert set(codes.integers()[0].tolist()) == {ONE >> 16}


def test_top_k_spreads_what_it_does_not_name_evenly():
    labels = SoftLabels(np.array([[0.5, 0.1, 0.04, 0.3, 0.06]], np.float32), 1.0)
    codes = quantise(labels, Codec.TOP_K, top_k=2)
    np.testing.assert_array_equal(codes.array, [[0, 3, 180, 140]])  # classes, then rint(255 sqrt p)
    named, rest = np.array([180**2, 140**2]), 255**2 - 180**2 - 140**2
    np.testing.assert_allclose(codes.integers()[0, [0, 3]], named * ONE / 255**2, atol=0.5)
    np.testing.assert_allclose(codes.integers()[0, [1, 2, 4]], rest * ONE / 255**2 / 3, atol=0.5)


def test_top_1_leaves_a_tenth_to_the_others():
    codes = quantise(SoftLabels(np.array([[0.2, 0.7, 0.1]], np.float32), 1.0), Codec.TOP_1)
    np.testing.assert_array_equal(codes.array, [[1]])
    rest = round(TOP_1_REST / 2 + 0.25)  # halves go up
    np.testing.assert_array_equal(codes.integers(), [[rest, ONE - 2 * rest, rest]])


@pytest.mark.parametrize(("classes", "columns"), [(256, 1), (257, 2)])
def test_a_class_takes_two_bytes_where_one_is_not_enough(classes, columns):
    p = np.zeros((1, classes), np.float32)
    p[0, -1] = 1.0
    codes = quantise(SoftLabels(p, 1.0), Codec.TOP_1)
    assert codes.array.shape == (1, columns)
    assert codes.integers().argmax() == classes - 1


def test_two_bytes_of_a_class_lie_apart_the_high_one_first():
    p = np.zeros((1, 300), np.float32)
    p[0, 258], p[0, 5] = 0.75, 0.25
    labels = SoftLabels(p, 1.0)
    np.testing.assert_array_equal(quantise(labels, Codec.TOP_1).array, [[1, 2]])
    np.testing.assert_array_equal(quantise(labels, Codec.TOP_K, 2).array, [[0, 1, 5, 2, 128, 221]])


@given(st.lists(st.integers(0, 2), min_size=20, max_size=200), st.integers(1, 19))
def test_ties_go_to_the_lower_class(logits, top_k):
    labels = SoftLabels.of(np.array([logits], np.float64), 1.0)
    likeliest = sorted(range(len(logits)), key=lambda label: (-logits[label], label))
    assert quantise(labels, Codec.TOP_1).array[0, 0] == likeliest[0]
    np.testing.assert_array_equal(quantise(labels, Codec.TOP_K, top_k).array[0, :top_k], sorted(likeliest[:top_k]))


def test_integers_are_the_same_in_any_order_and_on_any_machine():
    codes = [Codes(Codec.U8_SQRT, 3, np.array([[200, 150, 50 + k]], np.uint8)) for k in range(5)]
    total = sum(c.integers() for c in codes)
    np.testing.assert_array_equal(total, sum(c.integers() for c in reversed(codes)))
    np.testing.assert_array_equal(codes[0].integers(), [[645278, 362969, 40330]])


def half(*values):
    """The codes of one row of f16 values."""
    bits = np.array([values], np.float16).view(np.uint16)
    return np.concatenate([bits >> 8, bits & 255], axis=1).astype(np.uint8)


@pytest.mark.parametrize(
    ("codec", "classes", "top_k", "row"),
    [
        (Codec.U8_SQRT, 3, 0, [[0, 0, 0]]),
        (Codec.U8_SQRT, 3, 0, [[255, 255, 0]]),
        (Codec.U8_SQRT, 3, 0, [[100, 100, 100]]),
        (Codec.U4_SQRT, 3, 0, [[0, 0, 0]]),
        (Codec.U4_SQRT, 3, 0, [[15, 15, 0]]),
        (Codec.U4_SQRT, 3, 0, [[5, 5, 5]]),
        (Codec.F16, 2, 0, half(0.0, 0.0)),
        (Codec.F16, 2, 0, half(0.7, 0.7)),
        (Codec.F16, 2, 0, half(1.5, -0.5)),
        (Codec.F16, 2, 0, half(1.0, -0.0)),
        (Codec.F16, 2, 0, half(np.nan, 1.0)),
        (Codec.F16, 2, 0, half(np.inf, 0.0)),
        (Codec.TOP_K, 5, 2, [[0, 5, 180, 100]]),
        (Codec.TOP_K, 5, 2, [[3, 0, 180, 100]]),
        (Codec.TOP_K, 5, 2, [[3, 3, 180, 100]]),
        (Codec.TOP_K, 5, 2, [[0, 3, 0, 0]]),
        (Codec.TOP_K, 5, 2, [[0, 3, 255, 255]]),
        (Codec.TOP_1, 5, 0, [[5]]),
        (Codec.TOP_1, 300, 0, [[1, 44]]),
    ],
)
def test_a_row_that_no_distribution_has_is_refused(codec, classes, top_k, row):
    array = np.array(row, np.uint8)
    good = quantise(SoftLabels.of(np.zeros((1, classes)), 1.0), codec, top_k)
    body = encode_body(Codes(codec, classes, np.concatenate([good.array, array]), top_k))
    with pytest.raises(DecodeError) as caught:
        decode_body(body, codec, 2, classes, top_k)
    assert caught.value.reason == "invalid_rows"


@pytest.mark.parametrize(
    ("codec", "classes", "top_k"),
    [
        (Codec.U8_SQRT, 1, 0),
        (Codec.U8_SQRT, 2**16 + 1, 0),
        (Codec.U4_SQRT, 257, 0),
        (Codec.U8_SQRT, 10, 3),
        (Codec.TOP_K, 10, 0),
        (Codec.TOP_K_ZIPF, 10, 0),
        (Codec.TOP_K, 10, 10),
        (Codec.TOP_K, 10, -1),
    ],
)
def test_a_codec_that_cannot_carry_the_rows_is_refused(codec, classes, top_k):
    with pytest.raises(InvalidValueError):
        quantiser(codec, classes, top_k)


@pytest.mark.parametrize("codec", [Codec.U8_SQRT, Codec.U4_SQRT])
def test_flat_rows_of_the_most_classes_leave_no_row_empty(codec):
    classes = 256 if codec is Codec.U4_SQRT else 2**16
    codes = quantise(SoftLabels(np.full((1, classes), 1 / classes, np.float32), 1.0), codec)
    quantiser(codec, classes, 0).check(codes.array)
    assert codes.array.min() >= 1


@given(soft_labels(), st.data())
def test_what_is_not_named_may_follow_zipf_and_then_nothing_else_differs(labels, data):
    classes = labels.probabilities.shape[1]
    top_k = data.draw(st.integers(1, classes - 1))
    evenly, by_zipf = (quantise(labels, codec, top_k) for codec in (Codec.TOP_K, Codec.TOP_K_ZIPF))
    np.testing.assert_array_equal(evenly.array, by_zipf.array)
    is_named = np.zeros((len(evenly), classes), np.bool_)
    np.put_along_axis(is_named, np.argsort(-labels.probabilities, axis=1, kind="stable")[:, :top_k], True, axis=1)
    one, other = evenly.integers(), by_zipf.integers()
    np.testing.assert_array_equal(one[is_named], other[is_named])
    squares = np.square(evenly.array[:, -top_k:].astype(np.int64)).sum(axis=1)
    left = np.maximum(255**2 - squares, 0)
    rest = ONE * left / (squares + left)
    weights = np.where(is_named, 0.0, 1 / (np.arange(classes) + 3))
    shares = weights / weights.sum(axis=1, keepdims=True)
    expected = rest[:, None] * shares
    assert np.abs(np.where(is_named, 0, other) - expected).max() <= 1 + classes * 2e-4 * expected.max()


def test_of_the_most_classes_that_there_may_be_no_product_overflows():
    classes = 1 << 16
    row = np.full((1, classes), 1 / classes, np.float32)  # class 0 is named with the least code: all but 1 is spread
    codes = quantise(SoftLabels(row, 1.0), Codec.TOP_K_ZIPF, 1)
    integers = codes.integers()
    assert integers.min() >= 0
    assert abs(int(integers.sum()) - ONE) <= classes / 2
    assert integers[0, 1] > integers[0, 2] > integers[0, 3]
