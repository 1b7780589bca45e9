"""Names, digests and draws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId, check_digest, check_name, check_text, is_sampled
from tests.fd_protocol.strategies import names

SEED = bytes(range(16))


@given(names)
def test_a_name_may_stand_in_a_topic_a_certificate_and_a_path(name):
    assert check_name(name, "device") == name


def test_of_a_long_name_that_is_none_the_error_tells_the_beginning():
    with pytest.raises(InvalidValueError) as caught:
        check_name("x" * 65_000, "device")
    assert str(caught.value).startswith("device 'xxx")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\x00", "\u202e", "x" * 513])
def test_text_of_a_peer_is_one_printable_line(text):
    with pytest.raises(InvalidValueError):
        check_text(text, "reason")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_has_32_bytes(size):
    with pytest.raises(InvalidValueError):
        check_digest(bytes(size), "payload")


def test_the_draw_of_a_device_is_fixed_by_seed_and_name():
    # sha256(seed || id)[:4] / 2^32, computed once by sha256sum; both sides must agree for good.
    draw = 0xAD6165C3 / 2**32
    assert is_sampled("dev-1", SEED, draw + 1e-9)
    assert not is_sampled("dev-1", SEED, draw)


def test_a_fraction_of_the_fleet_joins():
    joined = sum(is_sampled(f"dev-{k}", SEED, 0.3) for k in range(2000))
    assert 500 < joined < 700
    assert all(is_sampled(f"dev-{k}", SEED, 1.0) for k in range(2000))


@given(names, st.floats(0, 1), st.floats(0, 1))
def test_who_joins_a_small_round_joins_a_larger_one(device, one, two):
    small, large = sorted((one, two))
    assert is_sampled(device, SEED, small) <= is_sampled(device, SEED, large)


@pytest.mark.parametrize(("epoch", "number"), [(-1, 0), (2**63, 0), (0, -1), (0, 2**31)])
def test_a_round_id_fits_the_database(epoch, number):
    with pytest.raises(InvalidValueError):
        RoundId("demo", epoch, number)


def test_rounds_of_a_federation_are_ordered_by_epoch_and_number():
    assert RoundId("demo", 1, 2) < RoundId("demo", 1, 3) < RoundId("demo", 2, 0)
