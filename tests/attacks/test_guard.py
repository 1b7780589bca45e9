"""With its guard a broker keeps no subscription but those that a fleet has; without, one device fills its memory."""

from __future__ import annotations

import pytest

from deploy.deb.guard import compile_guard, missing
from tests.attacks.ground import MALLORY, TOPICS, WITNESS, ground
from tests.attacks.raw import SESSION_EXPIRY, SUBACK, HungUpError, RawClient, connect, subscribe
from tests.attacks.victims import victims
from tests.support.brokers import needs_mosquitto

ARCHITECTURE = "amd64"
HOUR = bytes((SESSION_EXPIRY,)) + (3600).to_bytes(4, "big")
pytestmark = [
    pytest.mark.system,
    needs_mosquitto,
    pytest.mark.skipif(bool(missing(ARCHITECTURE)), reason=f"not installed: {' '.join(missing(ARCHITECTURE))}"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """As the server's package holds it."""
    return compile_guard(ARCHITECTURE, tmp_path_factory.mktemp("guard"))


def codes(client, *filters):
    client.send(subscribe(*filters))
    return list(client.answer(SUBACK).body[3:])


def test_a_device_may_subscribe_to_what_is_for_it_and_to_nothing_else(tmp_path, guard):
    with ground(tmp_path, guard=guard) as stage, stage.client() as client:
        own = TOPICS.device_filters(MALLORY)
        assert codes(client, *own) == [0] * len(own)
        others = (
            "#",
            "fd/#",
            *TOPICS.device_filters(WITNESS)[-2:],
            f"$share/agg/{TOPICS.base}/dev/+/up/+",
            TOPICS.base,
        )
        near = (f"{own[0]}/", own[0][:-1], f"{own[0]}x", TOPICS.receipt("+"), TOPICS.receipt("%u"), TOPICS.receipt(""))
        assert codes(client, *others, *near) == [0x87] * (len(others) + len(near))
        assert client.is_alive()


def test_a_federation_lives_with_it(tmp_path, guard):
    with ground(tmp_path, guard=guard) as stage, victims(stage) as ready:
        assert ready.harm() == []


def fill(stage):
    """Subscribe to ever shorter filters until nothing more is taken, and leave the session there."""
    number = 0
    for size in (60_000, 10_000, 1_000, 100, 10):
        try:
            with RawClient(stage.port, stage.files(MALLORY), connect(clean=False, props=HOUR)) as client:
                for _ in range(500):
                    number += 1
                    if codes(client, f"{number}/{'a' * size}") != [0]:
                        break
        except (HungUpError, OSError):
            continue


@pytest.mark.parametrize("has_guard", [True, False])
def test_a_device_that_would_fill_the_memory_with_subscriptions_fills_nothing(tmp_path, guard, has_guard):
    """The control says why the guard is there, and is the last entry but one of docs/security.md's open list."""
    with ground(tmp_path, guard=guard if has_guard else None, memory_mb=32) as stage:
        stage.files(WITNESS)
        fill(stage)
        assert stage.is_open_to(tries=3) is has_guard
