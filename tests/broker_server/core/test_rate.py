"""A device may send a minute's worth at once, and no more than that a minute for long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.core import rate
from broker_server.core.rate import Allowances, RateTerms
from broker_server.core.round import Phase
from broker_server.ingest import PRESENCES
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import RoundReport, Status
from tests.broker_server.world import TOPICS, World, fleet

TERMS = RateTerms(messages_per_minute=6, bytes_per_minute=100_000)


def allowed(allowances, device, sizes, at_ms=0):
    return [allowances.spend(device, size, at_ms) for size in sizes]


def test_a_minutes_worth_of_messages_may_come_at_once_and_then_as_fast_as_they_refill():
    allowances = Allowances(TERMS)
    assert allowed(allowances, "a", [1] * 7) == [True] * 6 + [False]
    assert allowed(allowances, "a", [1], at_ms=9_999) == [False]
    assert allowed(allowances, "a", [1, 1], at_ms=10_000) == [True, False]


def test_bytes_have_an_allowance_of_their_own():
    assert allowed(Allowances(TERMS), "a", [60_000, 60_000, 40_000]) == [True, False, True]


def test_one_device_does_not_spend_what_another_has():
    allowances = Allowances(TERMS)
    allowed(allowances, "a", [1] * 10)
    assert allowed(allowances, "b", [1]) == [True]


def test_nobody_saves_up_more_than_a_minute():
    allowances = Allowances(TERMS)
    allowed(allowances, "a", [1])
    assert sum(allowed(allowances, "a", [1] * 20, at_ms=10**9)) == 6


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing():
    allowances = Allowances(TERMS)
    assert sum(allowed(allowances, "a", [1] * 20, at_ms=60_000)) == 6
    assert allowed(allowances, "a", [1], at_ms=0) == [False]
    assert allowed(allowances, "a", [1], at_ms=10_000) == [True]


def test_without_limits_everything_may_come():
    assert all(allowed(Allowances(RateTerms(0, 0)), "a", [1 << 22] * 1000))


def test_the_memory_is_bounded_and_forgets_whoever_was_quiet_longest(monkeypatch):
    monkeypatch.setattr(rate, "MAX_DEVICES", 3)
    allowances = Allowances(TERMS)
    allowed(allowances, "a", [1] * 7)
    allowed(allowances, "b", [1] * 7)
    for device in ("c", "a", "d"):
        allowances.spend(device, 1, 0)
    assert len(allowances) == 3
    assert not allowances.spend("a", 1, 0), "it has just been heard"
    assert allowances.spend("b", 1, 0), "it was quiet, and is forgotten"


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 65_536)), max_size=60))
def test_no_device_sends_more_than_its_burst_and_its_rate(messages):
    allowances, at_ms, sent, count = Allowances(TERMS), 0, 0, 0
    for pause_ms, size in messages:
        at_ms += pause_ms
        if allowances.spend("a", size, at_ms):
            sent, count = sent + size, count + 1
    minutes = 1 + at_ms / 60_000
    assert count <= TERMS.messages_per_minute * minutes + 1e-6
    assert sent <= TERMS.bytes_per_minute * minutes + 1e-3


@pytest.mark.parametrize("wrong", [(-1, 0), (0, 1_000), (0, -1)])
def test_a_limit_below_a_packet_is_refused(wrong):
    with pytest.raises(InvalidValueError):
        RateTerms(*wrong)


# In the server.


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "s.db", admission=RateTerms(messages_per_minute=5))


def test_a_device_that_floods_is_refused_with_its_reason_and_the_round_goes_on(world):
    a, b, c = fleet(world)
    for device in (b, c):
        device.contribute()
    for _ in range(5):
        a.send(b"rubbish")
    payload, _ = a.contribution()
    (receipt,) = a.send(payload)
    assert (receipt.status, receipt.reason) == (Status.REFUSED, "rate_limited")
    assert world.server.counters["refused.rate_limited"] == 1
    world.wait(30)
    assert [receipt.status for receipt in a.send(payload)] == [Status.STORED]
    assert world.state.round.phase is Phase.CLOSED


def test_what_cannot_be_answered_is_dropped_and_counted(world):
    fleet(world)
    report = RoundReport(world.offer.round, bytes(32), accepted=True)
    for _ in range(8):
        world.arrive(TOPICS.report("a"), codec.encode(report))
    world.arrive(TOPICS.upload("a"), b"noise")
    world.settle()
    assert world.server.counters["report.accepted"] == 5
    assert world.server.counters["dropped.rate_limited"] == 4
    assert world.server.counters["set_aside.malformed"] == 0


def test_a_device_that_is_born_without_end_counts_as_gone_and_costs_nothing(world):
    fleet(world)
    for _ in range(PRESENCES.messages_per_minute):
        world.device("a")
    assert "a" not in world.state.online
    before = world.state
    for _ in range(20):
        world.device("a")
        world.arrive(TOPICS.state("a"), b"noise")
    world.settle()
    assert world.state is before
    assert world.server.counters["set_aside.malformed"] == 0
    assert world.server.counters["dropped.rate_limited"] == 41
    world.wait(60)
    world.device("a")
    assert set(world.state.online) == {"a", "b", "c"}


def test_noise_about_commands_is_dropped_before_it_is_read(world):
    fleet(world)
    for _ in range(8):
        world.arrive(TOPICS.command("a", "diag"), b"noise")
    world.settle()
    assert world.server.counters["set_aside.malformed"] == 5
    assert world.server.counters["dropped.rate_limited"] == 3


def test_births_and_wills_are_not_what_messages_are_counted_with(world):
    for _ in range(20):
        device = world.device("a")
        device.die()
    device = world.device("a")
    assert set(world.state.online) == {"a"}
