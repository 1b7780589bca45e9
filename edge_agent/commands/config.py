"""Command `config`: change settings from afar, and go back where the device is not well with them.

    arguments   dotted keys and values, as the environment has them; an empty value takes a remote one back

    checked --> on trial --restart of what is affected--> well for a while --> kept
                    |
                    +-- not well within `commands.health_window_s`, or it does not start --> rolled back

Only keys that are marked as the server's to change, budgets only to less than the owner allows (`remote_config`). The
new values are checked as a whole before anything changes: what a program would refuse at its start is refused here.
Well is: connected, the worker ready, no problem. A broker that is away all the while looks like a bad setting, and
rolls it back too: that is the safe mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent import remote_config
from edge_agent.care.vitals import Steadiness
from edge_agent.commands.body import Body
from edge_agent.commands.doing import CommandFailedError, Doing, Done, Failed, Finished, Progress, Step
from edge_agent.commands.machine import FORBIDDEN, INVALID, ROLLED_BACK
from edge_agent.configuration import load_changed, load_own
from edge_agent.jobs import Answer
from edge_agent.remote_config import RemoteConfig, remote_keys
from edge_agent.settings import AgentSettings
from fd_protocol.messages import Command
from fd_runtime.config import ConfigError
from fd_runtime.remote_fields import Restart

HEALTH = "health"
_STEADY_S = 10.0
"""So long it must be well, with the same worker."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class ConfigPlace:
    """Where the settings of a device lie, and what follows when they change.

    Attributes:
        path: of the owner's file.
        folder: of the state.
        window_s: in which the device must be well with new values.
        refresh: applies settings for which nothing starts anew.
        monotonic_s: seconds that no clock change touches.
        steady_s: how long it must be well.
    """

    path: Path
    folder: Path
    window_s: float
    refresh: Callable[[], None]
    monotonic_s: Callable[[], float]
    steady_s: float = _STEADY_S


def config_handler(body: Body, place: ConfigPlace) -> Callable[..., Doing]:
    """Return the handler."""

    def handle(command: Command, *, is_resumed: bool) -> Doing:  # noqa: ARG001 - the file tells more
        known = remote_config.load(place.folder)
        if known.settled == command.id:
            return Finished(_outcome(known))
        if known.trial == command.id:  # a new life: everything has started anew
            return _Trial(body, place, command.id, starts=0)
        restarts = _check(command.arguments, place.path, known)
        values = remote_config.merged(known.values, command.arguments)
        if values == known.values:
            return Finished(Done(values))
        return _apply(body, place, remote_config.begin(known, command.id, values), restarts)

    return handle


def _check(patch: Mapping[str, str], path: Path, known: RemoteConfig) -> frozenset[Restart]:
    """Return what must start anew for `patch` to count.

    Raises:
        CommandFailedError: a key that the server may not change, more than the owner allows, or a value that the device
            could not start with.
    """
    if not patch:
        raise CommandFailedError(f"{INVALID}: no keys")
    allowed = remote_keys(AgentSettings)
    for key in patch:
        if key not in allowed:
            raise CommandFailedError(f"{FORBIDDEN}: {key}")
    try:
        own = load_own(path)
        for key, text in patch.items():
            if text and not remote_config.is_allowed(own, key, text):
                stricter = remote_config.own_value(own, key)
                raise CommandFailedError(f"{FORBIDDEN}: {key}: the owner allows no more than {stricter}")
        load_changed(path, remote_config.merged(known.values, patch))
    except ConfigError as error:
        raise CommandFailedError(f"{INVALID}: {error.key}: {error.problem}") from error
    return frozenset(allowed[key].restart for key in patch)


def _apply(body: Body, place: ConfigPlace, config: RemoteConfig, restarts: frozenset[Restart]) -> Doing:
    """Write `config` down, on trial where something must start anew, and start it.

    Raises:
        OSError: no room; nothing has changed.
    """
    log.info("settings changed from afar: %s", ", ".join(f"{key} = {text}" for key, text in config.values.items()))
    if not restarts & {"agent", "worker"}:
        config = remote_config.keep(config)  # in one write: what is on trial has somebody who decides about it
    remote_config.save(place.folder, config)
    place.refresh()
    if not config.trial:
        return Finished(_outcome(config))
    starts = body.vitals.worker_starts
    if "agent" in restarts:
        body.restart()
    else:
        body.restart_worker()
    return _Trial(body, place, config.trial, starts)


def _outcome(config: RemoteConfig) -> Progress:
    if config.outcome:
        return Failed(f"{ROLLED_BACK}: {config.outcome}", config.values)
    return Done(config.values)


class _Trial:
    """Waits until the device has been well for a while with a worker that is ready more than `starts` times.

    Then it decides about what `command` has put on trial.
    """

    def __init__(self, body: Body, place: ConfigPlace, command: str, starts: int) -> None:
        self._body, self._place, self._command, self._starts = body, place, command, starts
        self._begin_s = place.monotonic_s()
        self._steadiness = Steadiness(place.steady_s)
        self._has_said = self._is_put_off = False

    def poll(self) -> Progress | None:
        if not self._has_said:
            self._has_said = True
            return Step(HEALTH)
        now_s, vitals = self._place.monotonic_s(), self._body.vitals
        complaints = vitals.complaints()
        if vitals.worker_starts <= self._starts:
            complaints = ("the worker is not ready",)
        if self._steadiness.look(vitals.worker_starts, now_s, is_well=not complaints):
            return self._settle(remote_config.keep)
        if now_s - self._begin_s > self._place.window_s:
            why = "; ".join(complaints) or "the worker did not stay"
            return self._settle(lambda config: remote_config.roll_back(config, why))
        return None

    def answered(self, _answer: Answer) -> bool:
        return False

    def _settle(self, decide: Callable[[RemoteConfig], RemoteConfig]) -> Progress | None:
        """Decide, and return what came of it once it is written down; None: it cannot be now, and is tried again."""
        try:
            config = remote_config.load(self._place.folder)
            if config.settled != self._command:  # else the disk took the decision, and failed before it said so
                config = decide(config)
            remote_config.save(self._place.folder, config)
        except OSError as error:
            if not self._is_put_off:
                log.warning("what becomes of settings changed from afar cannot be written down now: %s", error)
            self._is_put_off = True
            return None
        if config.outcome:
            log.warning("settings changed from afar are rolled back: %s", config.outcome)
            self._body.restart()
        return _outcome(config)
