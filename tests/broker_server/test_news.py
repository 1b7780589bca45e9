"""The log tells an operator what changed, and nothing twice."""

import itertools
from dataclasses import replace
from functools import reduce

from broker_server.core.events import AggregationFailed, EpochBegun, Order, Ordered, Schedule, StudentTrained
from broker_server.core.federation import Federation, step
from broker_server.news import news
from fd_protocol.identity import sha256
from tests.broker_server.builders import made, opened, round_id, stored

ALL = [stored(device) for device in "abc"]


def told(*events):
    """The lines that each event adds to the log."""
    states = [Federation()]
    for event in events:
        states.append(step(states[-1], event))
    return [line for before, after in itertools.pairwise(states) for line in news(before, after)]


def test_a_round_is_told_from_offer_to_consensus():
    lines = told(EpochBegun(7, 0), opened(), *ALL, made(), StudentTrained(round_id(), sha256(b"w"), {"loss": 0.25}))
    assert lines == [
        "round 1: offered to 3 devices",
        "round 1: aggregating, 3 devices heard",
        "round 1: closed, 3 devices heard",
        "consensus: ",
        "student: loss 0.25",
    ]


def test_an_aborted_round_is_told_with_its_reason():
    lines = told(EpochBegun(7, 0), opened(), *ALL, AggregationFailed(round_id(), "UnheardError", 0))
    assert lines[-1] == "round 1: aborted (UnheardError), 3 devices heard"


def test_an_epoch_that_was_overtaken_is_told():
    assert "older than what the fleet has seen" in told(EpochBegun(7, 0), EpochBegun(0xBEEF, 0))[0]


def test_probes_that_nobody_knows_are_warned_of():
    state = reduce(step, [EpochBegun(7, 0), opened(), *ALL], Federation())
    poor = replace(made(), metrics={"uncovered_probes": 0.7})
    assert any("may do harm" in line for line in news(state, step(state, poor)))


def test_a_device_that_outweighs_all_others_is_warned_of():
    state = reduce(step, [EpochBegun(7, 0), opened(), *ALL], Federation())

    def warned(**metrics):
        return any("of the consensus" in line for line in news(state, step(state, replace(made(), metrics=metrics))))

    assert warned(largest_share=0.62, voices=5.0)
    assert not warned(largest_share=0.5, voices=5.0)
    assert not warned(largest_share=0.62, voices=2.0), "of two, one has more"


def test_a_release_that_an_operators_bundle_calls_off_is_told_with_what_stands():
    said = {"family": "mlp-s", "bundle": sha256(b"2").hex(), "version": "2", "package": sha256(b"p").hex()}
    order = Order("one", 0, "ann", "operator", "publish", {**said, "package_bytes": "9", "own": "yes"})
    closed = [EpochBegun(7, 0), opened(), *ALL, made(), StudentTrained(round_id(), sha256(b"w"), is_better=True)]
    state = reduce(step, closed, Federation(schedule=Schedule(has_student=True, auto_release=True)))
    assert "the student is not released: 2 is published for its family" in news(state, step(state, Ordered(order, 0)))
