"""Codes survive their body, with a base and without; a body that is anything else is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.messages import Codec
from fd_protocol.payload import Codes, decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from tests.fd_protocol.test_quantisers import coded

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((50, 10)) * 4
MOVED = LOGITS + RNG.standard_normal((50, 10)) * 0.1
CODINGS = [(codec, 3 if codec.names_k else 0) for codec in Codec]


def decoded(body, codes, base=None):
    return decode_body(body, codes.codec, len(codes), codes.classes, codes.top_k, base=base)


@given(coded())
def test_codes_come_back(labels_and_codes):
    _, codes = labels_and_codes
    back = decoded(encode_body(codes), codes)
    np.testing.assert_array_equal(back.array, codes.array)
    assert back.is_like(codes)


@given(coded(), st.integers(0, 2**32))
def test_a_difference_loses_nothing(labels_and_codes, seed):
    labels, codes = labels_and_codes
    shuffled = np.random.default_rng(seed).permutation(labels.probabilities, axis=1)
    base = quantise(SoftLabels(shuffled, labels.temperature), codes.codec, codes.top_k)
    back = decoded(encode_body(codes, base), codes, base)
    np.testing.assert_array_equal(back.array, codes.array)


@pytest.mark.parametrize(("codec", "top_k"), CODINGS)
def test_a_difference_to_a_model_that_changed_little_is_shorter(codec, top_k):
    base, codes = (quantise(SoftLabels.of(logits, 2.0), codec, top_k) for logits in (LOGITS, MOVED))
    assert len(encode_body(codes, base)) < len(encode_body(codes))


def test_a_wrong_base_does_not_pass_for_the_right_one():
    codes = quantise(SoftLabels.of(LOGITS, 2.0), Codec.U8_SQRT)
    base, other = (quantise(SoftLabels.of(logits, 2.0), Codec.U8_SQRT) for logits in (MOVED, LOGITS[::-1]))
    with pytest.raises(DecodeError) as caught:
        decoded(encode_body(codes, base), codes, other)
    assert caught.value.reason == "invalid_rows"


@pytest.mark.parametrize(
    "other", [(Codec.U4_SQRT, LOGITS), (Codec.U8_SQRT, LOGITS[:-1]), (Codec.U8_SQRT, LOGITS[:, :9])]
)
def test_a_base_has_the_codec_and_the_shape_of_its_codes(other):
    codec, logits = other
    codes, base = quantise(SoftLabels.of(LOGITS, 2.0), Codec.U8_SQRT), quantise(SoftLabels.of(logits, 2.0), codec)
    with pytest.raises(InvalidValueError):
        encode_body(codes, base)
    with pytest.raises(DecodeError) as caught:
        decoded(encode_body(codes), codes, base)
    assert caught.value.reason == "unknown_base"


@pytest.mark.parametrize(("codec", "top_k"), CODINGS)
@pytest.mark.parametrize(("rows", "classes"), [(49, 10), (51, 10), (50, 12)])
def test_a_device_chooses_neither_rows_nor_classes(codec, top_k, rows, classes):
    body = encode_body(quantise(SoftLabels.of(LOGITS, 2.0), codec, top_k))
    if (codec.names_k or codec is Codec.TOP_1) and rows == 50:
        return  # their rows are as long for 12 classes as for 10
    with pytest.raises(DecodeError) as caught:
        decode_body(body, codec, rows, classes, top_k)
    assert caught.value.reason == "wrong_length"


@given(coded())
def test_codes_come_back_from_storage(labels_and_codes):
    _, codes = labels_and_codes
    back = Codes.from_bytes(codes.to_bytes())
    np.testing.assert_array_equal(back.array, codes.array)
    assert back.is_like(codes)


def check_read_or_refused(data):
    try:
        codes = Codes.from_bytes(data)
    except DecodeError:
        return
    assert codes.integers().shape == (len(codes), codes.classes)


@given(st.binary(max_size=80))
def test_any_bytes_are_stored_codes_or_refused(data):
    check_read_or_refused(data)


STORED = quantise(SoftLabels.of(LOGITS, 2.0), Codec.U8_SQRT).to_bytes()


@given(st.integers(0, len(STORED) - 1), st.integers(0, 255))
def test_damaged_storage_is_refused_or_codes(position, byte):
    check_read_or_refused(STORED[:position] + bytes([byte]) + STORED[position + 1 :])


def test_codes_and_soft_labels_cannot_be_changed():
    labels = SoftLabels.of(LOGITS, 2.0)
    codes = quantise(labels, Codec.U8_SQRT)
    for array in (labels.probabilities, codes.array):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 10), np.uint8), np.zeros((5, 9), np.uint8), np.zeros(10, np.uint8), np.zeros((5, 10), np.int8)],
)
def test_codes_of_a_wrong_shape_cannot_exist(array):
    with pytest.raises(InvalidValueError):
        Codes(Codec.U8_SQRT, 10, array)
