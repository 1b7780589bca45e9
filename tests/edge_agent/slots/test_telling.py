"""What the federation hears of a device's way to another bundle."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker_server.core.delivery import FOLLOWS
from edge_agent.presence import RELEASES, birth
from edge_agent.slots.machine import Phase, Slots
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.slots.telling import command_of
from fd_protocol.messages import CommandState
from tests.edge_agent.slots.test_machine import FACTORY, FIRST, TO_USE, after
from tests.edge_agent.wire import PROFILE


def test_each_step_and_the_end_are_told():
    told = [command_of(after(*TO_USE[:count]), 1000) for count in range(len(TO_USE) + 1)]
    assert told[0] is None
    assert [one.step for one in told[1:-1]] == ["download", "install", "reboot", "commit"]
    assert told[-1].state is CommandState.SUCCESSFUL
    assert {one.id for one in told[1:]} == {FIRST.bundle[:32]}


@pytest.mark.parametrize("outcome", ["1.r1 refused: no", "two\nlines", "x" * 5000])
def test_an_end_without_success_has_its_reason_in_a_line(outcome):
    told = command_of(Slots(factory=FACTORY, phase=Phase.IDLE, outcome=outcome, succeeded=False), 1000)
    assert told.state is CommandState.FAILED
    assert told.reason
    assert told.reason.isprintable()


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        ({}, False),
        ({"url": "https://server.lan:8443", "root": Path("root.json")}, True),
        ({"url": "https://server.lan:8443", "root": Path("root.json"), "automatic": False}, False),
    ],
)
def test_a_birth_says_whether_the_device_follows_releases(settings, is_told):
    """By it the server knows whom it has asked, and whose silence means something."""
    profile = replace(PROFILE, follows_releases=ReleaseSettings(**settings).are_followed)
    assert (RELEASES in birth(profile, 1, "edge-agent").capabilities) is is_told
    assert RELEASES == FOLLOWS  # two programs, one word
