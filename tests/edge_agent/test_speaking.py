"""Predictions said to the federation: where asked for, opaque, and never a burden on the broker or on memory."""

from __future__ import annotations

import logging

from edge_agent.process.notices import Spoke
from edge_agent.speaking import EXPIRY_S, MOST_UNANSWERED
from fd_protocol.messages import Prediction
from fd_runtime.links.link import MESSAGE_EXPIRED, NOT_AUTHORIZED, PublishRefused
from tests.edge_agent.wire import TOPICS, Device

MINE = TOPICS.prediction("dev-1")
SPOKE = Spoke("8c1f2a90d3b74e65", "b", 0.75)


def connected():
    device = Device()
    device.connect()
    device.confirm()
    return device


def say(device, times=1):
    for _ in range(times):
        device.wire.events.put(SPOKE)
    device.pump()


def said(device):
    return device.wire.messages(MINE, Prediction)


def tokens(device):
    return [token for token, topic, *_ in device.wire.published if topic == MINE]


def test_what_the_worker_says_of_a_sample_goes_to_the_federation():
    device = connected()
    say(device)
    assert said(device) == [Prediction("8c1f2a90d3b74e65", "b", 0.75)]


def test_a_prediction_is_not_retained_and_expires():
    device, seen = connected(), []
    publish = device.wire.publish
    device.wire.publish = lambda topic, payload, **how: (seen.append((topic, how)), publish(topic, payload, **how))[1]
    say(device)
    assert seen == [(MINE, {"expiry_s": EXPIRY_S})]


def test_while_the_broker_is_silent_no_more_than_a_few_are_on_their_way():
    device = connected()
    say(device, 100)
    assert len(said(device)) == MOST_UNANSWERED
    device.confirm()
    say(device)
    assert len(said(device)) == MOST_UNANSWERED + 1


def test_a_broker_that_refuses_is_complained_about_once_and_costs_no_round(caplog):
    device = connected()
    device.hear_offer()
    with caplog.at_level(logging.WARNING):
        for reason in (NOT_AUTHORIZED, NOT_AUTHORIZED, MESSAGE_EXPIRED):
            say(device)
            device.wire.events.put(PublishRefused(tokens(device)[-1], reason))
            device.pump()
    assert [record.message for record in caplog.records] == [f"the broker refuses predictions: {NOT_AUTHORIZED}"]
    assert len(device.parts()) == 1


def test_predictions_survive_no_restart():
    device = connected()
    say(device, 3)
    device.restart()
    device.connect()
    assert said(device) == []
