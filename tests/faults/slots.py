"""A device's way to another bundle, life after life; by its keeper, and by the programs that verify and try a package.

A verifier or a trial that is killed takes the device with it: to a machine without power they are one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from edge_agent.equipment import load_equipment
from edge_agent.settings import AgentSettings
from edge_agent.slots import keeper as keepers
from edge_agent.slots import machine, trial, verify
from edge_agent.slots.keeper import Health, Helpers, Keeper, begin
from edge_agent.slots.machine import Nudged, Offered, Phase
from edge_agent.slots.shelf import Shelf, Wish
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fd_runtime.models.proof import check_on
from fd_runtime.packages import unpack
from tests.faults.marks import marked, marks

RUNTIME = "onnxruntime"
WELL = Health(is_ready=True, deaths=0)
_PROGRAMS = {"trial": trial.main, "verify": verify.main}
_AS = "program:"


class _Forked:
    """What `subprocess.Popen` is to the keeper, for its two programs: a fork; an interpreter takes seconds to come."""

    def __init__(self, command, stdin, stdout, env) -> None:
        ours, theirs = os.pipe()
        self.pid, self.returncode = os.fork(), 0
        if self.pid == 0:
            status = 1
            try:
                os.close(ours)
                os.dup2(theirs, 1)
                status = _PROGRAMS[command[0].removeprefix(_AS)](command[1:])
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(theirs)
        self.stdout = os.fdopen(ours, "rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdout.close()
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self.returncode == -signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGTERM)  # by us: the device goes on


def act(config: str, offered: str, kind: str, seen: str) -> int:
    """Go the way to its end, and leave a mark with each state that is promised to last; print how it ended."""
    keepers._RETRY_S, keepers._TURN_S, keepers.subprocess.Popen = (0.02, 0.05), 0.01, _Forked
    path, wanted = Path(config), Offered(**json.loads(offered))
    settings = load_toml(path, AgentSettings)
    shelf = Shelf(settings.state.slots)
    while True:
        _remember(seen, begin(shelf, load_bundle(settings.model.bundle).digest.hex()))
        load_equipment(path)
        releases = replace(settings.releases, health_s=0.02, trial_s=60.0)
        helpers = Helpers([f"{_AS}trial", config], [f"{_AS}verify", config])
        life = Keeper(
            shelf,
            releases,
            lambda: None,
            helpers,
            lambda: WELL,
            device="dev-1",
            on_change=lambda state: _remember(seen, state),
        )
        _ask(life, shelf, wanted, kind, settings)
        while not (life.state.awaits_restart or life.state.phase is Phase.IDLE):
            time.sleep(0.005)
        state = life.state
        life.close()
        if state.phase is Phase.IDLE:
            sys.stdout.write(json.dumps({"active": state.active, "outcome": state.outcome, "bad": state.known_bad}))
            return 0


def _ask(life: Keeper, shelf: Shelf, wanted: Offered, kind: str, settings: AgentSettings) -> None:
    """Let the federation tell of it, or the owner bring it, where nothing is under way."""
    while life.state.phase is Phase.IDLE and (life.state.active or life.state.factory) != wanted.bundle:
        try:
            if kind == "nudge":
                life.take(Nudged(wanted))
                return
            package = settings.model.bundle.parent / f"{wanted.package}.fdb"
            shelf.leave_wish(Wish(offered=replace(wanted, by_owner=True), path=str(package)))
            keepers.time.sleep(0.05)
        except OSError:  # the disk is full: whoever asked asks again
            time.sleep(0.02)


def careless(config: str, offered: str, kind: str, seen: str) -> int:
    """A device that unpacks in the place of what it runs: for the harness to find out."""

    def in_place(equipment, shelf, wanted, say):
        package = shelf.part(wanted.package).read_bytes()
        folder = equipment.bundle.folder
        made = unpack(package, shelf.slot(f"{wanted.bundle}.new"), parent=folder)
        for path in made.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return trial._proven({}, "", keeps_tail=False)

    trial._try = in_place
    return act(config, offered, kind, seen)


def without_sync(*arguments: str) -> int:
    """A device that believes that a write is on the disk."""
    os.fsync = lambda _: None
    return act(*arguments)


def _remember(seen: str, state: machine.Slots) -> None:
    marked(seen, json.dumps((state.phase.value, state.active)))


def check(config: str, offered: str, kind: str, seen: str) -> None:
    """There is a model that answers as its golden vectors say; nothing is forgotten; it gets to the new bundle."""
    wanted = Offered(**json.loads(offered))
    check_on(load_equipment(Path(config)).bundle, RUNTIME)
    state = Shelf(load_toml(Path(config), AgentSettings).state.slots).load()
    told = [json.loads(line) for line in marks(seen)]
    if told:
        _check_is_as_far([state.phase.value, state.active], told[-1])
    sys.stdout.flush()
    assert act(config, offered, kind, os.devnull) == 0
    ran = load_equipment(Path(config)).bundle
    assert ran.digest.hex() == wanted.bundle, Shelf(load_toml(Path(config), AgentSettings).state.slots).load()
    check_on(ran, RUNTIME)


_ORDER = ("idle", "download", "install", "compiling", "reboot", "commit")


def _check_is_as_far(now: list[str], told: list[str]) -> None:
    """What is on the disk is what was promised last, or comes after it."""

    def rank(state: list[str]) -> int:
        return len(_ORDER) if state[0] == "idle" and state[1] else _ORDER.index(state[0])

    assert rank(now) >= rank(told), f"{now} after {told} was promised"
