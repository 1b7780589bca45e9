"""A command being carried out, as the desk sees it: something that is asked now and then how far it is.

A handler starts one, and one is started again for a command that an earlier life had begun. It never blocks: what takes
long runs elsewhere (the worker, a child process, a thread) and is looked at in `poll`. So a new command needs a handler
and nothing else; one with many parts, such as an update of the model, reports each as a `Step`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from edge_agent.commands.machine import ERROR
from edge_agent.jobs import Answer
from fd_protocol.errors import FedistillError
from fd_protocol.identity import MAX_TEXT_CHARACTERS
from fd_protocol.messages import MAX_RESULTS, Command

_RESULT_CHARACTERS = 6000

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Step:
    """It has come to another of its parts; `name` is one of `a-z0-9-`."""

    name: str


@dataclass(frozen=True, slots=True)
class Done:
    """It is done; `result` is numbers and words, nothing of a sample."""

    result: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """It has failed; `reason` begins with a word of docs/wire.md."""

    reason: str
    result: Mapping[str, str] = field(default_factory=dict)


Progress: TypeAlias = Step | Done | Failed


class CommandFailedError(FedistillError):
    """A command cannot be carried out; `reason` as `Failed` has it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Doing(Protocol):
    """One command under way. `FedistillError` and `OSError` out of any method are its failure."""

    def poll(self) -> Progress | None:
        """Return what is new since the last time; called a few times a second until it is `Done` or `Failed`."""

    def answered(self, answer: Answer) -> bool:
        """Whether an answer of the worker was for this command."""


class Handler(Protocol):
    """Carries out the commands of one name."""

    def __call__(self, command: Command, *, is_resumed: bool) -> Doing:
        """Begin, or go on with what an earlier life of the device had begun: some of it may have been done.

        Raises:
            CommandFailedError: it cannot be.
        """


class Finished:
    """What needs no time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def poll(self) -> Progress | None:
        return self._progress

    def answered(self, _answer: Answer) -> bool:
        return False


def failure_of(error: Exception) -> Failed:
    """Return the failure that an error is. Of one that the command did not foresee only the kind: its text is free."""
    if isinstance(error, CommandFailedError):
        return Failed(one_line(error.reason))
    log.warning("a command failed: %s", error)
    return Failed(f"{ERROR}: {type(error).__name__}")


def bounded(result: Mapping[str, str]) -> dict[str, str]:
    """Return as much of a result as a message may carry."""
    kept: dict[str, str] = {}
    room = _RESULT_CHARACTERS
    for name, text in list(result.items())[:MAX_RESULTS]:
        said = one_line(text)
        room -= len(name) + len(said)
        if room < 0:
            break
        kept[name] = said
    return kept


def one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_TEXT_CHARACTERS]
