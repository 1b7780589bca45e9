"""What the federation hears of a device's way to another bundle."""

import pytest

from edge_agent.slots.machine import Phase, Slots
from edge_agent.slots.telling import command_of
from fd_protocol.messages import CommandState
from tests.edge_agent.slots.test_machine import FACTORY, FIRST, TO_USE, after


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
