"""A device's commands as a pure fold: `step(state, event) -> state`, `outstanding(state) -> effects`.

    CommandHeard --> waiting --CommandBegun--> EXECUTING [step] --CommandEnded--> SUCCESSFUL | FAILED --CommandTold-->
                        |                                                           ^
                        +-- unsupported, forbidden, too many, expired --------------+

Rules:
- An id is done once. Heard again, it is answered again with where it stands.
- Of one name one command is carried out at a time, in the order in which they came; of different names side by side.
- A command that is not begun by `expires_utc_s` never is. By a clock that was never set nothing expires; the broker has
  forgotten it then.
- Every state is durable before the fleet hears of it, and is told until the broker has it.
- What was begun in an earlier life is carried on with: its handler is told so, and decides whether it can.
- A command that is heard as `executing` and not remembered was begun by a memory that is lost: it failed.

What is deliberately absent: what a command does (`handlers`), clocks, the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from fd_protocol.messages import Command, CommandState
from fd_protocol.schema import keyed

MAX_OPEN = 16
UNSUPPORTED, FORBIDDEN, INVALID, EXPIRED = "unsupported", "forbidden", "invalid", "expired"
TOO_MANY, INTERRUPTED, ROLLED_BACK, ERROR = "too_many", "interrupted", "rolled_back", "error"
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Open:
    """A command that has not ended; `life` is the one in which it was begun, 0 while it waits."""

    command: Command = keyed(1)
    life: int = keyed(2, default=0)

    @property
    def is_begun(self) -> bool:
        return self.command.state is CommandState.EXECUTING


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended; `is_told`: the broker has its end."""

    command: Command = keyed(1)
    is_told: bool = keyed(2, default=False)


@dataclass(frozen=True, slots=True)
class Commands:
    """The whole memory: what is to be done, oldest first, and the last ends, oldest first."""

    open: tuple[Open, ...] = keyed(1, default=())
    ended: tuple[Ended, ...] = keyed(2, default=())

    def find(self, command_id: str) -> Command | None:
        """Return where a command stands; None: it is unknown, or forgotten."""
        known = (*(one.command for one in self.open), *(one.command for one in self.ended))
        return next((command for command in known if command.id == command_id), None)


@dataclass(frozen=True, slots=True)
class CommandHeard:
    """A command has come. `objection`: why this device will not do it, as a failure says it; empty: it will."""

    command: Command
    at_utc_s: int
    objection: str = ""


@dataclass(frozen=True, slots=True)
class CommandBegun:
    """It is its turn, in the device's life number `life`."""

    id: str
    at_utc_s: int
    life: int


@dataclass(frozen=True, slots=True)
class StepReached:
    """It has come to another of its parts."""

    id: str
    step: str


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """It is done, or has failed for `reason`."""

    id: str
    reason: str = ""
    result: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandTold:
    """The broker has the end of it."""

    id: str


Event: TypeAlias = CommandHeard | CommandBegun | StepReached | CommandEnded | CommandTold


@dataclass(frozen=True, slots=True)
class Begin:
    """Effect: its turn has come; answered by `CommandBegun`."""

    id: str


@dataclass(frozen=True, slots=True)
class CarryOut:
    """Effect: it is carried out, or carried on with where `life` is not the present one."""

    id: str
    life: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Effect: the broker retains where it stands."""

    id: str
    state: CommandState
    step: str = ""


Effect: TypeAlias = Begin | CarryOut | Tell


def step(state: Commands, event: Event) -> Commands:
    """Return the state after `event`; one that does not fit changes nothing."""
    match event:
        case CommandHeard():
            return _hear(state, event)
        case CommandBegun(command_id, at_utc_s, life) if Begin(command_id) in outstanding(state):
            if at_utc_s > _open(state, command_id).command.expires_utc_s:
                return _end(state, command_id, EXPIRED, {})
            return _change(state, command_id, life, state=CommandState.EXECUTING)
        case StepReached(command_id, name) if _is_begun(state, command_id):
            return _change(state, command_id, _open(state, command_id).life, step=name)
        case CommandEnded(command_id, reason, result) if _is_begun(state, command_id):
            return _end(state, command_id, reason, result)
        case CommandTold(command_id):
            return _mark(state, command_id, is_told=True)
    return state


def outstanding(state: Commands) -> tuple[Effect, ...]:
    """Return everything that must be brought about in this state."""
    effects: list[Effect] = [_tell(one.command) for one in state.ended if not one.is_told]
    for one in state.open:
        if one.is_begun:
            effects += [_tell(one.command), CarryOut(one.command.id, one.life)]
    return (*effects, *map(Begin, _next(state)))


def _next(state: Commands) -> Iterator[str]:
    """Yield the first waiting command of each name of which none is being carried out."""
    taken = {one.command.command for one in state.open if one.is_begun}
    for one in state.open:
        if one.command.command not in taken:
            taken.add(one.command.command)
            yield one.command.id


def _hear(state: Commands, heard: CommandHeard) -> Commands:
    command = heard.command
    if state.find(command.id) is not None:
        # An end is told again; what is open its shell tells again, for nothing here has changed.
        return _mark(state, command.id, is_told=False) if command.state is CommandState.INIT else state
    if command.state is CommandState.EXECUTING:
        return _remember(state, _failed(command, INTERRUPTED))
    if command.state is not CommandState.INIT:
        return state
    if heard.objection:
        return _remember(state, _failed(command, heard.objection))
    if heard.at_utc_s > command.expires_utc_s:
        return _remember(state, _failed(command, EXPIRED))
    if len(state.open) >= MAX_OPEN:
        return _remember(state, _failed(command, TOO_MANY))
    return replace(state, open=(*state.open, Open(command)))


def _open(state: Commands, command_id: str) -> Open:
    return next(one for one in state.open if one.command.id == command_id)


def _is_begun(state: Commands, command_id: str) -> bool:
    return any(one.command.id == command_id and one.is_begun for one in state.open)


def _change(commands: Commands, command_id: str, life: int, **changes: Any) -> Commands:
    changed = tuple(
        Open(replace(one.command, **changes), life) if one.command.id == command_id else one for one in commands.open
    )
    return replace(commands, open=changed)


def _end(state: Commands, command_id: str, reason: str, result: Mapping[str, str]) -> Commands:
    command = _open(state, command_id).command
    left = replace(state, open=tuple(one for one in state.open if one.command.id != command_id))
    if reason:
        return _remember(left, replace(_failed(command, reason), result=result))
    done = replace(command, state=CommandState.SUCCESSFUL, step="", arguments={}, result=result)
    return _remember(left, done)


def _failed(command: Command, reason: str) -> Command:
    """An end says nothing of the arguments: who gave them knows them, and the room is for the result."""
    return replace(command, state=CommandState.FAILED, step="", arguments={}, reason=reason)


def _remember(state: Commands, command: Command) -> Commands:
    """Only the last end of a name keeps what it said at length: the broker retains no other."""
    before = tuple(
        replace(one, command=replace(one.command, result={})) if one.command.command == command.command else one
        for one in state.ended
    )
    return replace(state, ended=(*before, Ended(command))[-_REMEMBERED:])


def _mark(state: Commands, command_id: str, *, is_told: bool) -> Commands:
    if not any(one.command.id == command_id and one.is_told is not is_told for one in state.ended):
        return state
    marked = tuple(replace(one, is_told=is_told) if one.command.id == command_id else one for one in state.ended)
    return replace(state, ended=marked)


def _tell(command: Command) -> Tell:
    return Tell(command.id, command.state, command.step)
