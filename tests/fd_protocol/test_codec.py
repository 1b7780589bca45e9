"""Messages survive the wire, old readers survive new writers, and nothing else survives the decoder."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol import cbor, codec
from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId
from fd_protocol.messages import (
    MAX_PART_BYTES,
    MAX_PAYLOAD_BYTES,
    Command,
    CompetenceMap,
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Part,
    PrivacyTerms,
    Receipt,
    RoundOffer,
    RoundReport,
    Sampling,
    ServerState,
    TrainingTerms,
)
from tests.fd_protocol.strategies import messages
from tests.golden.vectors import MESSAGES

ALL = [
    RoundOffer,
    Part,
    Receipt,
    ConsensusBlock,
    DeviceState,
    ServerState,
    RoundReport,
    Contribution,
    CompetenceMap,
]


@given(messages)
def test_every_message_comes_back(message):
    assert codec.decode(codec.encode(message), type(message)) == message


@given(messages)
def test_every_message_fits_a_packet(message):
    assert len(codec.encode(message)) <= codec.MAX_MESSAGE_BYTES


@given(
    messages,
    st.dictionaries(st.integers(100, 200) | st.text(max_size=3), st.integers(0, 2**64 - 1) | st.none(), max_size=3),
)
def test_keys_of_a_newer_peer_are_ignored_at_every_level(message, extra):
    def enriched(item):
        if not isinstance(item, dict) or not all(isinstance(key, int) for key in item):
            return item  # text keys are data: the metrics of a report
        return {**{key: enriched(member) for key, member in item.items()}, **extra}

    newer = cbor.encode(enriched(cbor.decode(codec.encode(message))))
    assert codec.decode(newer, type(message)) == message


def written_out(default):
    """The item of a field's default, as a writer in another language might write it."""
    if dataclasses.is_dataclass(default) or isinstance(default, dict):
        return {}
    return list(default) if isinstance(default, tuple) else default


def default_of(field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_default_that_is_written_out_is_read_as_one_that_is_left_out(message):
    data = codec.encode(message)
    item = cbor.decode(data)
    defaults = {
        field.metadata["key"]: written_out(default_of(field))
        for field in dataclasses.fields(message)
        if default_of(field) is not dataclasses.MISSING
    }
    longer = cbor.encode({**defaults, **item})
    assert codec.decode(longer, type(message)) == message
    assert codec.encode(codec.decode(longer, type(message))) == data


def check_read_or_refused(data, expected):
    try:
        message = codec.decode(data, expected)
    except DecodeError:
        return
    assert codec.decode(codec.encode(message), expected) == message


@given(st.binary(max_size=100), st.sampled_from(ALL))
def test_any_bytes_are_a_message_or_refused(data, expected):
    check_read_or_refused(data, expected)


@given(messages, st.data())
def test_a_damaged_message_is_another_message_or_refused(message, data):
    damaged = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check_read_or_refused(bytes(damaged), type(message))


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text()
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 20) | st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(messages, st.data())
def test_a_message_with_anything_in_a_field_is_a_message_or_refused(message, data):
    item = cbor.decode(codec.encode(message))
    item[data.draw(st.sampled_from(sorted(item)))] = data.draw(ANYTHING)
    check_read_or_refused(cbor.encode(item), type(message))


@given(messages, st.sampled_from(ALL))
def test_another_message_than_the_topic_calls_for_is_refused(message, expected):
    if expected is not type(message):
        with pytest.raises(DecodeError) as caught:
            codec.decode(codec.encode(message), expected)
        assert caught.value.reason == "foreign_kind"


@pytest.mark.parametrize("item", [[], {}, {0: "1"}, {0: True}, {0: None}, 1, None])
def test_what_does_not_say_which_message_it_is_is_malformed(item):
    with pytest.raises(DecodeError) as caught:
        codec.decode(cbor.encode(item), Receipt)
    assert caught.value.reason == "malformed"


def test_a_long_message_is_refused_unread():
    with pytest.raises(DecodeError) as caught:
        codec.decode(b"\x00" * (codec.MAX_MESSAGE_BYTES + 1), Part)
    assert caught.value.reason == "oversized"


@pytest.mark.parametrize(
    ("expected", "item"),
    [
        (DeviceState, {0: 5, 1: 1, 2: True, 6: "\x01" * 65_000}),
        (DeviceState, {0: 5, 1: 1, 2: True, 3: "\x01" * 65_000}),
        (Command, {0: 11, 1: "a", 2: "config", 3: "\x01" * 65_000, 4: 1}),
        (Part, {0: 2, 1: {1: "\x01" * 64_000, 2: 1, 3: 1}, 2: "contribution", 3: bytes(32), 4: 1, 5: b"x"}),
        (RoundReport, {0: 7, 1: {1: "f", 2: 1, 3: 1}, 2: bytes(32), 3: True, 5: {"m" * 64_000: 1.0}}),
    ],
    ids=["name", "text", "word", "federation", "metric"],
)
def test_a_refusal_is_a_short_line_however_long_the_message_is(expected, item):
    with pytest.raises(DecodeError) as caught:
        codec.decode(cbor.encode(item), expected)
    assert len(str(caught.value)) < 500


def test_the_longest_part_fits_a_packet():
    part = Part(
        RoundId("f" * 64, 2**63 - 1, 2**31 - 1),
        Kind.CONTRIBUTION,
        bytes(32),
        MAX_PAYLOAD_BYTES,
        bytes(MAX_PART_BYTES),
        127,
        128,
    )
    data = codec.encode(part)
    assert len(data) <= codec.MAX_MESSAGE_BYTES
    assert codec.decode(data, Part) == part


@given(messages)
def test_equal_messages_have_equal_bytes(message):
    assert codec.encode(dataclasses.replace(message)) == codec.encode(message)


def test_equal_terms_of_whole_numbers_have_equal_bytes():
    offer = MESSAGES["round-offer"]
    for changed, same in (
        ({"sampling": Sampling(bytes(16), 1)}, {"sampling": Sampling(bytes(16), 1.0)}),
        ({"training": TrainingTerms(probe_weight=1)}, {"training": TrainingTerms(probe_weight=1.0)}),
        ({"privacy": PrivacyTerms(epsilon=0, steps=7)}, {"privacy": PrivacyTerms(epsilon=0.0, steps=7)}),
    ):
        one, other = dataclasses.replace(offer, **changed), dataclasses.replace(offer, **same)
        assert one == other
        assert codec.encode(one) == codec.encode(other)
