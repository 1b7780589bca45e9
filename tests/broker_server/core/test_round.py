"""One round, told as rules and as invariants under any events."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.core.events import AggregationFailed, ClockTicked, EpochBegun
from broker_server.core.round import Phase, opened, step
from fd_protocol.identity import sha256
from tests.broker_server import builders
from tests.broker_server.builders import made, round_id, stored

LATE = ClockTicked(60_000)


def told(*events, **opening):
    return reduce(step, events, opened(builders.opened(**opening)))


def test_a_round_starts_as_an_offer_to_everyone_invited():
    state = told(invited=("a", "b"))
    assert (state.phase, state.invited, state.awaited, state.heard, state.contributions) == (Phase.OFFERED, 2, 2, 0, ())


def test_all_in_closes_the_offer_before_the_deadline():
    assert told(stored("a"), stored("b")).phase is Phase.OFFERED
    assert told(stored("a"), stored("b"), stored("c")).phase is Phase.AGGREGATING


def test_quorum_at_the_deadline_is_enough():
    assert told(stored("a"), stored("b"), ClockTicked(59_999)).phase is Phase.OFFERED
    assert told(stored("a"), stored("b"), LATE).phase is Phase.AGGREGATING


def test_a_clock_that_was_set_back_gives_the_round_its_time_anew():
    begun = builders.opened(at_ms=10_000_000)
    state = opened(begun)
    assert state.deadline_ms == 10_060_000
    assert step(state, ClockTicked(9_940_000)) is state  # a minute is waited for
    back = step(state, ClockTicked(9_939_999))
    assert back.deadline_ms == 9_999_999
    assert step(back, ClockTicked(9_999_999)).has_ended
    assert step(step(state, ClockTicked(12)), ClockTicked(10_000_000)).has_ended  # 1970, and right again


def test_no_quorum_at_the_deadline_aborts_the_round():
    state = told(stored("a"), LATE)
    assert (state.phase, state.reason, state.heard) == (Phase.ABORTED, "quorum", 1)


def test_all_in_below_quorum_waits_for_others_until_the_deadline():
    assert told(stored("a"), invited=("a",)).phase is Phase.OFFERED
    assert told(stored("a"), stored("late"), invited=("a",)).phase is Phase.AGGREGATING


def test_where_nobody_was_online_the_deadline_alone_closes():
    state = told(stored("a"), stored("b"), stored("c"), invited=())
    assert state.phase is Phase.OFFERED
    assert step(state, LATE).phase is Phase.AGGREGATING


def test_a_device_counts_once_with_its_first_payload():
    state = told(stored("a"), stored("a"), stored("a", payload="other"), LATE)
    assert (state.phase, state.heard) == (Phase.ABORTED, 1)
    state = told(stored("a"), stored("a", payload="other"))
    assert state.contributions == (("a", sha256(b"a")),)


@pytest.mark.parametrize("foreign", [stored("a", number=2), stored("a", epoch=8)])
def test_a_contribution_to_another_round_changes_nothing(foreign):
    state = told()
    assert step(state, foreign) is state


def test_a_contribution_after_the_offer_changes_nothing():
    state = told(stored("a"), stored("b"), LATE)
    assert step(state, stored("c")) is state


def test_a_consensus_closes_the_round_and_its_devices_are_forgotten():
    state = told(stored("a"), stored("b"), LATE, made())
    assert (state.phase, state.heard, state.awaited, state.devices) == (Phase.CLOSED, 2, 1, {})


@pytest.mark.parametrize("foreign", [made(number=2), made(epoch=8), AggregationFailed(round_id(2), "rows", 0)])
def test_the_result_of_another_round_changes_nothing(foreign):
    state = told(stored("a"), stored("b"), LATE)
    assert step(state, foreign) is state


def test_a_consensus_of_an_offer_is_none():
    state = told(stored("a"))
    assert step(state, made()) is state


def test_a_round_without_consensus_is_aborted_with_its_reason():
    state = told(stored("a"), stored("b"), LATE, AggregationFailed(round_id(), "overflow", 0))
    assert (state.phase, state.reason) == (Phase.ABORTED, "overflow")


@pytest.mark.parametrize("events", [(), (stored("a"), stored("b"), LATE)])
def test_a_new_epoch_aborts_an_open_round(events):
    state = told(*events, EpochBegun(8, 0))
    assert (state.phase, state.reason) == (Phase.ABORTED, "epoch")


devices = st.sampled_from("abcd")
events = st.one_of(
    st.builds(stored, devices, st.sampled_from([1, 2]), st.sampled_from([7, 8]), st.sampled_from(["x", "y"])),
    st.builds(ClockTicked, st.sampled_from([0, 59_999, 60_000, 90_000])),
    st.builds(made, st.sampled_from([1, 2])),
    st.builds(AggregationFailed, st.builds(round_id, st.sampled_from([1, 2])), st.just("rows"), st.just(0)),
    st.builds(EpochBegun, st.just(8), st.just(0)),
)


@given(st.lists(events, max_size=12))
def test_a_round_is_never_aggregated_below_quorum(history):
    state = opened(builders.opened())
    for event in history:
        state = step(state, event)
        if state.phase in (Phase.AGGREGATING, Phase.CLOSED):
            assert state.heard >= state.offer.quorum


@given(st.lists(events, max_size=12))
def test_the_counts_always_tell_what_the_devices_tell(history):
    state = opened(builders.opened())
    for event in history:
        state = step(state, event)
        if not state.has_ended:
            assert state.heard == len(state.contributions) == len(dict(state.contributions))
            assert state.awaited == sum(not digest for digest in state.devices.values())


@given(st.lists(events, max_size=12), st.lists(events, max_size=6))
def test_what_has_ended_stays_ended(history, later):
    ended = reduce(step, history, opened(builders.opened()))
    if ended.has_ended:
        assert reduce(step, later, ended) is ended


@given(st.permutations([*map(stored, "abcd"), stored("a"), stored("b")]))
def test_any_order_of_arrivals_gives_the_same_contributions(arrivals):
    state = reduce(step, arrivals, opened(builders.opened(invited=("e", "c"))))
    assert state.contributions == tuple((device, sha256(device.encode())) for device in "abcd")
