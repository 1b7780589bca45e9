"""Where commands come in and their states go out: the wire and the store around `machine`, handlers beside it.

    cmd/+ --> hear --> memory (durable) --> acknowledgement
                          |
                          v
        machine: Begin, CarryOut --> handler --> Doing, polled --> StepReached, CommandEnded
                 Tell --> cmd/{name}, retained

Where the disk is full an event waits here, in order, and a command that came stays unacknowledged.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from edge_agent.commands import memory
from edge_agent.commands.doing import Doing, Done, Failed, Handler, Progress, Step, bounded, failure_of, one_line
from edge_agent.commands.machine import (
    ERROR,
    FORBIDDEN,
    UNSUPPORTED,
    Begin,
    CarryOut,
    CommandBegun,
    CommandEnded,
    CommandHeard,
    Commands,
    CommandTold,
    Effect,
    Event,
    StepReached,
    Tell,
    outstanding,
    step,
)
from edge_agent.jobs import Answer
from fd_protocol import codec
from fd_protocol.errors import DecodeError, FedistillError
from fd_protocol.messages import Command, CommandState
from fd_protocol.topics import MODEL, Topics, parse
from fd_runtime.links.link import Arrived, Link
from fd_runtime.reconciler import Reconciler
from fd_runtime.storage.store import Store, StoreUnwritableError

_POLL_S = 0.25
_DISK_RETRY_S = 5.0

log = logging.getLogger("edge-agent")


class CommandDesk:
    """The commands of one device.

    Args:
        device, topics: whose.
        store: keeps them.
        link: to the broker.
        handlers: by name of the command.
        allowed: names that the owner allows.
        life: number of this life of the device.
        utc_s: seconds since 1970.
        monotonic_s: seconds that no clock change touches.
        chores: done at every `tick`.
    """

    def __init__(
        self,
        device: str,
        topics: Topics,
        store: Store,
        link: Link,
        handlers: Mapping[str, Handler],
        *,
        allowed: Collection[str],
        life: int,
        utc_s: Callable[[], float],
        monotonic_s: Callable[[], float],
        chores: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._device, self._topics, self._store, self._link = device, topics, store, link
        self._handlers, self._allowed, self._life = handlers, allowed, life
        self._utc_s, self._monotonic_s, self._chores = utc_s, monotonic_s, chores
        self._doings: dict[str, Doing] = {}
        self._telling: dict[int, str] = {}
        """Ids of ended commands by the token of the message that tells of it."""
        self._backlog: deque[tuple[Event, Arrived | None]] = deque()
        self._retry_s = 0.0
        self._reconciler: Reconciler[Commands, Event, Effect] = Reconciler(
            memory.load(store, topics.federation), step, outstanding, self._keep, self._perform
        )
        self._reconciler.reconcile()

    @property
    def state(self) -> Commands:
        return self._reconciler.state

    # Coming in.

    def hear(self, arrived: Arrived) -> None:
        """Take in what came on `cmd/+`; what is no command is dropped with a word, and never comes again."""
        try:
            command = self._read(arrived)
        except DecodeError as error:
            log.warning("dropped a message on %s: %s", arrived.topic, error)
            command = None
        if command is None or _is_own_word(command):
            self._link.ack(arrived)
            return
        self._tell_again(command)
        self._take(CommandHeard(command, int(self._utc_s()), self._objection(command)), arrived)

    def published(self, token: int) -> None:
        """The broker has a message, or will never take it: either way it need not be told again."""
        command_id = self._telling.pop(token, None)
        if command_id is not None:
            self._take(CommandTold(command_id))

    def answered(self, answer: Answer) -> bool:
        """Whether an answer of the worker was for a command."""
        return any(doing.answered(answer) for doing in self._doings.values())

    def tick(self) -> None:
        """See how far everything is; call it now and then, after `wait_s` at the latest."""
        for chore in self._chores:
            chore()
        for command_id, doing in list(self._doings.items()):
            self._ask(command_id, doing)
        self._settle()
        self._reconciler.reconcile()

    def wait_s(self) -> float | None:
        """Return after how long `tick` has something to do at the latest; None: as long as nothing comes in."""
        if self._doings:
            return _POLL_S
        return _DISK_RETRY_S if self._backlog else None

    def _read(self, arrived: Arrived) -> Command | None:
        """Return the command in a message; None: nothing, as on a topic that somebody has cleared.

        Raises:
            DecodeError: it is none, or stands on another's topic.
        """
        if not arrived.payload:
            return None
        command = codec.decode(arrived.payload, Command)
        if parse(arrived.topic).argument != command.command:
            raise DecodeError("invalid", f"a command {command.command} on another's topic")
        return command

    def _objection(self, command: Command) -> str:
        if command.command not in self._handlers:
            return UNSUPPORTED
        return "" if command.command in self._allowed else FORBIDDEN

    def _tell_again(self, command: Command) -> None:
        """The server has not heard how far a command is that we are carrying out."""
        known = self.state.find(command.id)
        if known is not None and command.state is CommandState.INIT:
            self._reconciler.forget(Tell(known.id, known.state, known.step))

    # Taking in: the memory first, then what follows, then the acknowledgement.

    def _take(self, event: Event, arrived: Arrived | None = None) -> None:
        self._backlog.append((event, arrived))
        self._settle()

    def _settle(self) -> None:
        if self._monotonic_s() < self._retry_s:
            return
        try:
            while self._backlog:
                event, arrived = self._backlog[0]
                if step(self.state, event) != self.state:
                    self._reconciler.submit([event])
                if arrived is not None:
                    self._link.ack(arrived)
                self._backlog.popleft()
        except StoreUnwritableError as error:
            self._retry_s = self._monotonic_s() + _DISK_RETRY_S
            log.warning("a command waits: %s", error)

    def _keep(self, events: Sequence[Event]) -> None:
        memory.keep(self._store, self._topics.federation, reduce(step, events, self.state))

    # Carrying out.

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Begin(command_id):
                self._backlog.append((CommandBegun(command_id, int(self._utc_s()), self._life), None))
            case CarryOut(command_id, life):
                self._start(command_id, is_resumed=life != self._life)
            case Tell(command_id):
                self._tell(command_id)

    def _start(self, command_id: str, *, is_resumed: bool) -> None:
        command = self.state.find(command_id)
        assert command is not None  # it is open
        log.info("command %s %s%s", command.command, command_id, ": going on with it" if is_resumed else "")
        try:
            self._doings[command_id] = self._handlers[command.command](command, is_resumed=is_resumed)
        except KeyError:  # an agent from before this command was installed over one that had begun it
            self._end(command_id, Failed(UNSUPPORTED))
        except (FedistillError, OSError) as error:
            self._end(command_id, failure_of(error))

    def _ask(self, command_id: str, doing: Doing) -> None:
        try:
            progress = doing.poll()
        except (FedistillError, OSError) as error:
            progress = failure_of(error)
        self._note(command_id, progress)

    def _note(self, command_id: str, progress: Progress | None) -> None:
        match progress:
            case Step(name):
                self._take(StepReached(command_id, name))
            case Done() | Failed():
                self._end(command_id, progress)

    def _end(self, command_id: str, end: Done | Failed) -> None:
        self._doings.pop(command_id, None)
        reason = one_line(end.reason or ERROR) if isinstance(end, Failed) else ""
        log.info("command %s: %s", command_id, reason or "done")
        self._backlog.append((CommandEnded(command_id, reason, bounded(end.result)), None))

    def _tell(self, command_id: str) -> None:
        command = self.state.find(command_id)
        assert command is not None  # it is told while it is remembered
        topic = self._topics.command(self._device, command.command)
        # What an `executing` repeats of the arguments would be of no use to anybody.
        token = self._link.publish(topic, codec.encode(replace(command, arguments={})), retain=True)
        if command.state.has_ended:
            self._telling[token] = command_id


def _is_own_word(command: Command) -> bool:
    """Whether it is what the device tells of itself unasked (`slots.telling`), as the broker kept it."""
    return command.command == MODEL and command.state is not CommandState.INIT
