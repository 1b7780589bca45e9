"""Brings about what the slots' state asks for: fetches, tries, watches. One thread, which may be killed at any moment.

    Release on the wire --+
    a wish of the owner --+--> nudge --> state.json --> thread: fetch | trial process | watch over health
                                                          |
                          service: begins the life anew <-+

Every step is written down before the next begins, and each may be done twice: a part file goes on growing, a trial
begins with an empty folder, a switch is one word in one file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import select
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.slots import machine
from edge_agent.slots.choosing import wanted
from edge_agent.slots.machine import (
    BackWanted,
    Broken,
    Compiling,
    Downloaded,
    Event,
    Healthy,
    Installed,
    Lost,
    Nudged,
    Offered,
    Phase,
    Refused,
    Slots,
    Started,
    TookPart,
    Unhealthy,
)
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.slots.shelf import Shelf
from fd_protocol.errors import FedistillError
from fd_protocol.messages import Release
from fd_runtime.artifacts import load_bundle

_TURN_S, _IDLE_S = 1.0, 600.0
_RETRY_S = (15.0, 3600.0)
"""First and longest wait before what was postponed is tried again; the wait doubles, and a fleet does not march."""
_DEATHS = 2
"""Of a worker that is on trial; one may be anybody's fault."""
_LINE_BYTES = 1 << 16
"""Of a trial's; what is longer is no verdict."""
_VERIFY_S = 180.0
"""For a helper that asks the server; it has patience of its own (`fd_runtime.tuf.client`)."""
_KILLS = 2
"""Trials that the kernel may kill, for lack of memory, before the bundle is too large."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Health:
    """How the worker does in this life: whether it has loaded everything, how often it died, and of what last."""

    is_ready: bool
    deaths: int
    last_death: str = ""


def begin(shelf: Shelf, factory: str) -> Slots:
    """Begin a life: count it, and make sure that what is active can be read.

    Raises:
        OSError: the state cannot be written.
    """
    state = machine.step(shelf.load(), Started(factory))
    while state.active:
        try:
            load_bundle(shelf.slot(state.active))
            break
        except (FedistillError, OSError) as error:
            log.error("slot %s: %s", state.active[:12], error)  # noqa: TRY400 - the line says it all
            state = machine.step(state, Broken(str(error)))
    shelf.save(state)
    return state


@dataclass(frozen=True, slots=True)
class Helpers:
    """Commands to which `Offered` is appended, as JSON: one tries a bundle, one says whether it may be fetched."""

    trial: Sequence[str]
    verify: Sequence[str]


class Keeper:
    """Follows releases for one life of a device.

    Args:
        shelf: the slots; `begin` has been called.
        settings: how to follow them.
        tls: returns whom packages are taken from, asked anew for each; None = whom the system trusts.
        helpers: the programs that do what this process is too small for.
        health: asked while a bundle is on trial.
        device: name of this one: some are among the first.
        on_change: told every new state, from any thread.
        environment: of the trial; None = this process's.

    Attributes:
        received_bytes: that came over the network, in this life.
        is_data_spent: nothing more may come for now, by the owner's bound; set from outside.
    """

    def __init__(
        self,
        shelf: Shelf,
        settings: ReleaseSettings,
        tls: Callable[[], ssl.SSLContext | None],
        helpers: Helpers,
        health: Callable[[], Health],
        *,
        device: str,
        on_change: Callable[[Slots], None] = lambda _: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._shelf, self._settings, self._tls, self._helpers = shelf, settings, tls, helpers
        self._device = device
        self._health, self._on_change, self._environment = health, on_change, environment
        self.received_bytes, self.is_data_spent = 0, False
        self._state = shelf.load()
        self._changed = threading.Condition()
        self._is_closing = False
        self._failures = 0
        self._unwritten: Offered | None = None
        self._is_news = False
        self._began_s = time.monotonic()
        # Devices that lost power together do not ask together.
        self._asked_s = self._began_s - random.uniform(0.0, 0.5) * settings.poll_s  # noqa: S311 - only to spread
        self._thread = threading.Thread(target=self._run, name="slots", daemon=True)
        self._thread.start()

    @property
    def state(self) -> Slots:
        return self._state

    def nudge(self, release: Release) -> None:
        """Hear what the federation wants its devices to run."""
        if not self._settings.are_followed:
            log.info("release %s is not followed: releases.url or releases.automatic", release.version)
            return
        offered = wanted(release, self._device, self._state)
        if offered.package_bytes > self._settings.max_mb * 1e6:
            log.warning("release %s has %d bytes, releases.max_mb forbids it", offered.version, offered.package_bytes)
            return
        try:
            self.take(Nudged(offered))
        except OSError as error:  # no reason for a device to stop: the thread takes it once the disk does
            log.warning("release %s waits: %s", offered.version, error)
            self._unwritten, self._is_news = offered, True
        else:
            self._unwritten = None

    def take(self, event: Event) -> None:
        """Let the state take an event, durably, before anything follows from it."""
        with self._changed:
            after = machine.step(self._state, event)
            if after == self._state:
                return
            self._shelf.save(after)
            self._state, self._failures = after, 0
            self._changed.notify_all()
        _tell(after)
        self._on_change(after)

    def took_part(self) -> None:
        """A round has ended for this device; where the disk does not take that, the next one tells it."""
        try:
            self.take(TookPart())
        except OSError as error:
            log.warning("the slot before stays: %s", error)

    def close(self) -> None:
        """End soon; what is under way goes on in the next life."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(2 * _TURN_S)

    # The thread.

    def _run(self) -> None:
        while not self._is_closing:
            try:
                self._turn()
            except OSError as error:  # the card is full or read-only: what is on disk stands
                self._postpone(str(error))
            except Exception:  # a mistake of ours must not end releases for good, nor spin
                log.exception("releases wait")
                self._wait(_IDLE_S)

    def _turn(self) -> None:
        self._is_news = False
        if (unwritten := self._unwritten) is not None:
            self.take(Nudged(unwritten))
            if self._unwritten is unwritten:
                self._unwritten = None
        self._grant()
        state = self._state
        match state.phase:
            case Phase.DOWNLOAD:
                self._fetch(state)
            case Phase.INSTALL | Phase.COMPILING:
                self._try(state)
            case Phase.COMMIT:
                self._watch()
                self._wait(_TURN_S, since=state)
            case Phase.IDLE | Phase.REBOOT | Phase.ROLLBACK:
                self._shelf.tidy(state)
                if (left_s := self._until_poll_s()) <= 0.0:
                    self._poll(state)
                else:
                    self._wait(min(_IDLE_S, left_s), since=state)

    def _grant(self) -> None:
        """Do what the device's owner wants, if anything."""
        wish = self._shelf.wish()
        if wish is None:
            return
        try:
            if wish.is_back:
                self.take(BackWanted())
            elif wish.offered is not None:
                shutil.copyfile(wish.path, self._shelf.part(wish.offered.package))
                self.take(Nudged(wish.offered))
        except OSError as error:
            log.warning("a wish cannot be granted: %s", error)
        self._shelf.forget_wish()

    def _fetch(self, state: Slots) -> None:
        from edge_agent.slots.download import (  # noqa: PLC0415 - brings 2 MB of urllib, http and mail
            CalledOffError,
            Parcel,
            PostponedError,
            WrongPackageError,
            fetch,
        )

        assert state.release is not None
        release = state.release
        url = f"{self._settings.url}/v1/blobs/{release.package}" if self._settings.url else ""
        parcel = Parcel(url, release.package, release.package_bytes)
        path = self._shelf.part(release.package)
        if self.is_data_spent and not (path.exists() and path.stat().st_size >= release.package_bytes):
            self._postpone("it waits: training.data_mb_per_month is used up")
            return
        if not release.by_owner and not self._is_vouched_for(state):
            return
        try:
            fetch(parcel, path, tls=self._tls(), is_over=self._is_over_for(state), on_bytes=self._count)
        except WrongPackageError as error:
            if release.by_owner:
                self.take(Refused(str(error)))
            else:  # what is signed is good, whatever a web server gives in its place
                self._postpone(str(error))
        except PostponedError as error:
            self._postpone(str(error))
        except CalledOffError:
            return
        else:
            self.take(Downloaded())

    def _is_vouched_for(self, state: Slots) -> bool:
        """Ask whether what is under way may be fetched; what is not is refused, or waits."""
        assert state.release is not None
        said = self._ask_server(state, json.dumps(asdict(state.release)))
        match said:
            case {"outcome": "verified"}:
                return True
            case {"outcome": "refused", "reason": str(reason)}:
                self.take(Refused(reason))
            case {"outcome": "undecided", "reason": str(reason)} | {"killed": str(reason)} | {"crashed": str(reason)}:
                if self._state is state:
                    self._postpone(reason)
            case _:
                self._postpone("nobody said whether it is genuine")
        return False

    def _ask_server(self, state: Slots, *offered: str) -> Mapping[str, object]:
        end_s = time.monotonic() + _VERIFY_S
        command = [*self._helpers.verify, *offered]
        said = _ask(command, self._environment, end_s, self._is_over_for(state), lambda _: None)
        self._asked_s = time.monotonic()
        received = said.get("received_bytes")
        self._count(received if isinstance(received, int) else 0)
        return said

    def _poll(self, state: Slots) -> None:
        """Ask whether what is believed is still the latest: who holds back nudges holds this back too, and is seen."""
        said = self._ask_server(state)
        if said.get("outcome") != "verified" and not self._is_closing:
            log.warning("releases: %s", said.get("reason") or said)

    def _until_poll_s(self) -> float:
        if not self._settings.are_followed or self.is_data_spent:
            return _IDLE_S
        return self._asked_s + self._settings.poll_s - time.monotonic()

    def _count(self, new_bytes: int) -> None:
        self.received_bytes += new_bytes  # this thread alone writes it

    def _is_over_for(self, state: Slots) -> Callable[[], bool]:
        return lambda: self._is_closing or self._state is not state

    def _try(self, state: Slots) -> None:
        assert state.release is not None
        if not (self._shelf.part(state.release.package).exists() or self._shelf.slot(state.release.bundle).exists()):
            self.take(Lost())
            return
        said = _ask(
            [*self._helpers.trial, json.dumps(asdict(state.release))],
            self._environment,
            time.monotonic() + self._settings.trial_s,
            self._is_trial_over,
            self._hear_step,
        )
        if self._is_trial_over():
            return
        match said:
            case {"outcome": "proven", "metrics": dict(metrics), "tail": str(tail), "keeps_tail": bool(keeps_tail)}:
                found = [f"{name} {number:.4g}" for name, number in metrics.items()]
                self.take(Installed("; ".join(filter(None, [", ".join(found), tail])), keeps_tail))
            case {"outcome": "refused", "reason": str(reason)}:
                self.take(Refused(reason))
            case {"outcome": "postponed", "reason": str(reason)}:
                self._postpone(reason)
            case {"killed": str(reason)} if self._failures + 1 < _KILLS:
                self._postpone(reason)
            case {"killed": str(reason)} | {"crashed": str(reason)}:
                self.take(Refused(reason))
            case _:
                self.take(Refused("its trial ended without a verdict"))

    def _is_trial_over(self) -> bool:
        """Whether nobody wants to hear any more what comes of it; a trial has two phases, another release neither."""
        return self._is_closing or self._state.phase not in (Phase.INSTALL, Phase.COMPILING)

    def _hear_step(self, step: str) -> None:
        if step == Phase.COMPILING.value:
            self.take(Compiling())

    def _watch(self) -> None:
        health, age_s = self._health(), time.monotonic() - self._began_s
        if health.deaths >= _DEATHS:
            self.take(Unhealthy(f"the worker died {health.deaths} times: {health.last_death}"))
        elif age_s >= self._settings.health_s and health.is_ready:
            self.take(Healthy())
        elif age_s >= self._settings.health_s + self._settings.trial_s:
            self.take(Unhealthy(f"the worker is not ready after {age_s:.0f} s"))

    def _postpone(self, reason: str) -> None:
        low_s, high_s = _RETRY_S
        longest_s = min(high_s, low_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        log.warning("release: %s", reason)
        self._wait(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - only to spread a fleet out

    def _wait(self, timeout_s: float, since: Slots | None = None) -> None:
        """Wait until the state is another than `since`, for `timeout_s` at most; a wish of the owner ends it too."""
        state, end_s = since or self._state, time.monotonic() + timeout_s
        with self._changed:
            while not self._is_closing and self._state is state and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(min(left_s, _TURN_S))
                if self._is_news or self._shelf.wish() is not None:
                    return


def _ask(
    command: Sequence[str],
    environment: Mapping[str, str] | None,
    end_s: float,
    is_over: Callable[[], bool],
    on_step: Callable[[str], None],
) -> Mapping[str, object]:
    """Run a trial, pass on which step it is at, and return its verdict, or how it came that there is none."""
    verdict: Mapping[str, object] = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            for said in _lines(process.stdout.fileno(), lambda: is_over() or time.monotonic() > end_s):
                match said:
                    case {"step": str(step)}:
                        on_step(step)
                    case {"outcome": str()}:
                        verdict = said
        except _TooLateError:
            process.kill()
            return {"crashed": "its trial took too long"}
        except BaseException:
            process.kill()
            raise
    if process.returncode == -signal.SIGKILL:
        return {"killed": "its trial was killed, for lack of memory perhaps"}
    if process.returncode < 0:
        return {"crashed": f"its trial crashed: {signal.Signals(-process.returncode).name}"}
    return verdict or {"crashed": f"its trial ended with status {process.returncode}"}


class _TooLateError(Exception):
    """Nobody waits any longer."""


def _lines(pipe: int, is_over: Callable[[], bool]) -> Iterator[Mapping[str, object]]:
    """Yield what a trial says, line by line, until it ends; what is no JSON object says nothing.

    Raises:
        _TooLateError: it is over before that.
    """
    left = b""
    while True:
        if is_over():
            raise _TooLateError
        if not select.select([pipe], [], [], _TURN_S)[0]:
            continue
        data = os.read(pipe, 1 << 16)
        *lines, left = (left + data + (b"" if data else b"\n")).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    yield said
        if not data:
            return
        left = left[:_LINE_BYTES]


def _tell(state: Slots) -> None:
    if state.phase is Phase.IDLE and state.outcome:
        log.log(logging.INFO if state.succeeded else logging.WARNING, "release: %s", state.outcome)
    elif state.release is not None:
        log.info("release %s: %s", state.release.version, state.phase.value)


def trial_command(path: Path) -> list[str]:
    """Return the command that tries a bundle for the device that the settings at `path` describe."""
    return [sys.executable, "-m", "edge_agent.slots.trial", str(path)]


def verify_command(path: Path) -> list[str]:
    """Return the command that says whether a package may be fetched by the device of the settings at `path`."""
    return [sys.executable, "-m", "edge_agent.slots.verify", str(path)]
