"""A look at a device from outside, whether it runs or not: settings, memory, its standing. It writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent import remote_config
from edge_agent.care.diagnosis import waiting
from edge_agent.commands import memory
from edge_agent.commands.machine import Commands
from edge_agent.configuration import load_settings
from edge_agent.presence import boot_of
from edge_agent.process import standing as standings
from edge_agent.process.standing import Standing
from edge_agent.round.events import Send
from edge_agent.round.journal import Journal
from edge_agent.round.participant import Participant
from edge_agent.settings import AgentSettings
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import EX_NOINPUT
from fd_runtime.starting import blame, is_held
from fd_runtime.storage.store import Store


class NeverRunError(FedistillError):
    """A device has no memory yet."""

    exit_code = EX_NOINPUT

    def __init__(self, path: Path, database: Path) -> None:
        super().__init__(f"{path}: state.folder: no such file: {database}; the device has never run: `edge-agent run`")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A payload that waits to be sent: what it is, of which round, its digest and its size."""

    send: Send
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        path: of the settings.
        settings: as they count.
        has_run: there is a memory; else the next two are as a device is born.
        state: what the journal folds to.
        commands: what the server has ordered.
        boot: number of its last life.
        waiting: what the outbox holds.
        standing: of that life, which goes on or ended without a word; None: it has not told yet, or tells no more.
        is_running: the supervisor holds its folder.
        remote: values that the server has changed.
    """

    path: Path
    settings: AgentSettings
    has_run: bool
    state: Participant
    commands: Commands
    boot: int
    waiting: tuple[Waiting, ...]
    standing: Standing | None
    is_running: bool
    remote: remote_config.RemoteConfig

    def require_run(self) -> Look:
        """Return it.

        Raises:
            NeverRunError: so.
        """
        if not self.has_run:
            raise NeverRunError(self.path, self.settings.state.store)
        return self

    @property
    def complaints(self) -> tuple[str, ...]:
        """What must be otherwise for the device to do its work; nothing: it runs and is well."""
        if not self.is_running:
            return ("it is not running",)
        if self.standing is None:
            return ("it has just begun, or cannot say how it is",)
        return self.standing.vitals.complaints()


def look(path: Path) -> Look:
    """Return what there is to see of the device of the settings file at `path`.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: the memory cannot be read.
    """
    settings = load_settings(path)
    folder, database = settings.state.folder, settings.state.store
    told = standings.load(settings.state.standing)
    with blame(path, "state.folder"):
        remote = remote_config.load(folder)
        is_running = _is_running(folder, told)
        if not database.is_file():
            state, commands = Participant(), Commands()
            return Look(path, settings, False, state, commands, 0, (), None, is_running, remote)
        with _view(database) as store:
            state = Journal(store, settings.device.federation).replay()
            commands = memory.load(store, settings.device.federation)
            kept = tuple(Waiting(send, len(store.blob(send.payload))) for send in waiting(state))
            boot = boot_of(store)
        standing = told if told is not None and told.vitals.boot == boot else None
        return Look(path, settings, True, state, commands, boot, kept, standing, is_running, remote)


def unseen(path: Path) -> Look:
    """Return the look at a device of which nothing but the settings can be read.

    Raises:
        ConfigError: not even these.
    """
    settings, remote = load_settings(path), remote_config.RemoteConfig()
    return Look(path, settings, False, Participant(), Commands(), 0, (), None, False, remote)


@contextmanager
def _view(database: Path) -> Iterator[Store]:
    """Inside, everything is of one moment, whatever the supervisor writes meanwhile."""
    with Store.view(database) as store, store.moment():
        yield store


def _is_running(folder: Path, told: Standing | None) -> bool:
    """Where the system does not tell who holds a lock, a living process with the pid that is told is taken for it."""
    held = is_held(folder / "agent.lock")
    if held is not None:
        return held
    try:
        os.kill(told.vitals.pid if told is not None else 0, 0)
    except OSError:
        return False
    return told is not None
