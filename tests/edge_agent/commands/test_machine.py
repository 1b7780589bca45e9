"""A command is done once, told until it is heard, and never forgotten in between, whatever the order of things."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.commands.machine import (
    MAX_OPEN,
    Begin,
    CarryOut,
    CommandBegun,
    CommandEnded,
    CommandHeard,
    Commands,
    CommandTold,
    StepReached,
    Tell,
    outstanding,
    step,
)
from fd_protocol import cbor
from fd_protocol.messages import Command, CommandState
from fd_protocol.schema import from_item, to_item

NOW, LATER, LIFE = 1000, 5000, 3


def command(name="diag", number=1, **changes):
    return replace(Command(f"{name}-{number}", name, CommandState.INIT, LATER, {"x": "1"}), **changes)


def after(*events, state=Commands()):  # noqa: B008 - frozen
    for event in events:
        state = step(state, event)
    return state


def heard(*names, **changes):
    """Commands as they came, numbered by name in the order of their coming."""
    return [CommandHeard(command(name, number, **changes), NOW) for number, name in enumerate(names)]


def test_a_command_from_end_to_end():
    state = after(CommandHeard(command(), NOW))
    assert outstanding(state) == (Begin("diag-1"),)
    state = after(CommandBegun("diag-1", NOW, LIFE), state=state)
    assert outstanding(state) == (Tell("diag-1", CommandState.EXECUTING), CarryOut("diag-1", LIFE))
    state = after(StepReached("diag-1", "look"), state=state)
    assert outstanding(state)[0] == Tell("diag-1", CommandState.EXECUTING, "look")
    state = after(CommandEnded("diag-1", result={"phase": "idle"}), state=state)
    assert outstanding(state) == (Tell("diag-1", CommandState.SUCCESSFUL),)
    done = state.find("diag-1")
    assert (done.state, done.step, done.arguments, done.result) == (CommandState.SUCCESSFUL, "", {}, {"phase": "idle"})
    assert outstanding(after(CommandTold("diag-1"), state=state)) == ()


def test_the_same_id_is_never_done_twice():
    state = after(
        CommandHeard(command(), NOW), CommandBegun("diag-1", NOW, LIFE), CommandEnded("diag-1"), CommandTold("diag-1")
    )
    again = after(CommandHeard(command(), NOW), state=state)
    assert outstanding(again) == (Tell("diag-1", CommandState.SUCCESSFUL),)
    assert (
        after(CommandHeard(command(), NOW), CommandHeard(command(), NOW)).open
        == after(CommandHeard(command(), NOW)).open
    )


def test_its_own_words_come_back_and_change_nothing():
    state = after(CommandHeard(command(), NOW), CommandBegun("diag-1", NOW, LIFE))
    echo = command(state=CommandState.EXECUTING)
    assert after(CommandHeard(echo, NOW), state=state) == state
    done = after(CommandEnded("diag-1"), CommandTold("diag-1"), state=state)
    for end in (echo, command(state=CommandState.SUCCESSFUL), command(state=CommandState.FAILED, reason="error")):
        assert after(CommandHeard(end, NOW), state=done) == done


def test_what_a_lost_memory_had_begun_has_failed():
    state = after(CommandHeard(command(state=CommandState.EXECUTING), NOW))
    assert state.find("diag-1").reason == "interrupted"
    assert outstanding(state) == (Tell("diag-1", CommandState.FAILED),)


def test_an_end_that_is_not_remembered_is_no_command():
    assert after(CommandHeard(command(state=CommandState.SUCCESSFUL), NOW)) == Commands()


@pytest.mark.parametrize("objection", ["unsupported", "forbidden"])
def test_what_the_device_will_not_do_fails_at_once_and_is_not_begun(objection):
    state = after(CommandHeard(command(), NOW, objection))
    assert state.find("diag-1").reason == objection
    assert outstanding(state) == (Tell("diag-1", CommandState.FAILED),)


def test_a_command_that_comes_too_late_is_not_begun():
    assert after(CommandHeard(command(), LATER + 1)).find("diag-1").reason == "expired"
    assert after(CommandHeard(command(), LATER)).find("diag-1").state is CommandState.INIT


def test_a_command_whose_turn_comes_too_late_is_not_begun():
    state = after(CommandHeard(command(), NOW), CommandBegun("diag-1", LATER + 1, LIFE))
    assert state.find("diag-1").reason == "expired"


def test_by_a_clock_that_was_never_set_nothing_expires():
    assert after(CommandHeard(command(), 7)).find("diag-1").state is CommandState.INIT


def test_commands_of_one_name_come_one_after_the_other_those_of_others_meanwhile():
    state = after(*heard("diag", "diag", "config"))
    assert outstanding(state) == (Begin("diag-0"), Begin("config-2"))
    state = after(CommandBegun("diag-0", NOW, LIFE), CommandBegun("config-2", NOW, LIFE), state=state)
    assert Begin("diag-1") not in outstanding(state)
    assert after(CommandBegun("diag-1", NOW, LIFE), state=state) == state
    assert Begin("diag-1") in outstanding(after(CommandEnded("diag-0"), state=state))


def test_more_than_it_can_keep_are_refused():
    state = after(*heard(*["diag"] * (MAX_OPEN + 1)))
    assert len(state.open) == MAX_OPEN
    assert state.ended[0].command.reason == "too_many"


def test_only_the_last_end_of_a_name_keeps_its_result():
    events = [
        event
        for number in range(3)
        for event in (
            CommandHeard(command("diag", number), NOW),
            CommandBegun(f"diag-{number}", NOW, LIFE),
            CommandEnded(f"diag-{number}", result={"n": str(number)}),
        )
    ]
    state = after(*events)
    assert [one.command.result for one in state.ended] == [{}, {}, {"n": "2"}]


def test_it_remembers_many_ends_and_not_all_of_them():
    state = Commands()
    for number in range(200):
        state = after(CommandHeard(command("diag", number), NOW, "unsupported"), state=state)
    assert len(state.ended) == 64
    assert state.find("diag-199") is not None
    assert len(cbor.encode(to_item(state))) < 20_000


EVENTS = st.one_of(
    st.builds(
        CommandHeard,
        st.builds(
            command,
            st.sampled_from(["diag", "config"]),
            st.integers(1, 3),
            state=st.sampled_from([CommandState.INIT, CommandState.EXECUTING, CommandState.SUCCESSFUL]),
        ),
        st.sampled_from([NOW, LATER + 1]),
        st.sampled_from(["", "", "forbidden"]),
    ),
    *(
        st.builds(cls, st.sampled_from([f"{name}-{n}" for name in ("diag", "config") for n in (1, 2, 3)]), *rest)
        for cls, rest in (
            (CommandBegun, (st.sampled_from([NOW, LATER + 1]), st.integers(1, 2))),
            (StepReached, (st.sampled_from(["a", "b"]),)),
            (CommandEnded, (st.sampled_from(["", "error"]),)),
            (CommandTold, ()),
        )
    ),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_no_id_is_begun_twice_and_every_end_is_told(events):
    state, begun = Commands(), {}
    for event in events:
        before = state
        state = step(state, event)
        for one in state.open:
            known = next((old for old in before.open if old.command.id == one.command.id), None)
            if one.is_begun and (known is None or not known.is_begun):
                begun[one.command.id] = begun.get(one.command.id, 0) + 1
        executing = [one.command.command for one in state.open if one.is_begun]
        assert len(executing) == len(set(executing))
        ids = [one.command.id for one in (*state.open, *state.ended)]
        assert len(ids) == len(set(ids))
        assert from_item(Commands, cbor.decode(cbor.encode(to_item(state)))) == state
        for one in before.ended:
            assert state.find(one.command.id).state is one.command.state
    assert all(count == 1 for count in begun.values())
    told = {effect.id for effect in outstanding(state) if isinstance(effect, Tell)}
    assert {one.command.id for one in state.ended if not one.is_told} <= told
