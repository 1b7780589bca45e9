"""Where a device stands, read from its memory; the device may be running meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_agent.care.look import Look, look
from edge_agent.process.standing import Standing
from edge_agent.round.participant import Participant
from edge_agent.settings import AgentSettings
from edge_agent.slots.shelf import Shelf
from fd_protocol.messages import Command
from fd_protocol.public_set import PUBLIC_SET_NAME, PublicSetSpec
from fd_runtime.starting import blame


def facts(path: Path) -> dict[str, Any]:
    """Return what is worth knowing about the device of the settings file at `path`, by name.

    Raises:
        ConfigError: the file is wrong at a key.
        NeverRunError: the device has no memory yet.
        StartError: its memory cannot be read.
    """
    seen = look(path).require_run()
    device = seen.settings.device
    told: dict[str, Any] = {"device": device.id, "federation": device.federation, "running": seen.is_running}
    told |= {"starts": seen.boot}
    if seen.is_running:
        told |= {"well": not seen.complaints, **({"because": "; ".join(seen.complaints)} if seen.complaints else {})}
        told |= _life(seen.standing) if seen.standing is not None else {}
    told |= {**_rounds(seen.state), **_slots(seen.settings)}
    with blame(path, "model.public_set"):
        if lacking := _lacking(seen.state, seen.settings):
            told["lacks"] = f"public set {' '.join(lacking)}"
    if seen.waiting:
        told["outbox"] = {one.send.kind.value: f"{one.size_bytes} B of {one.send.round}" for one in seen.waiting}
    if commands := _commands(seen):
        told["commands"] = commands
    if seen.remote.values:
        told["set by the server"] = dict(seen.remote.values)
    if seen.remote.trial:
        told["on trial"] = f"settings of command {seen.remote.trial}"
    return told


def _life(standing: Standing) -> dict[str, Any]:
    """Return what it says of itself at the moment."""
    vitals = standing.vitals
    known: dict[str, Any] = {"connection": vitals.connection}
    if standing.advice:
        known["what to do"] = standing.advice
    known["worker"] = f"{'ready' if vitals.is_worker_ready else 'not ready'}, {vitals.worker_starts} starts"
    if standing.last_death:
        known["last worker"] = f"ended by {standing.last_death}"
    if standing.waiting:
        known["waiting"] = f"{standing.waiting} messages for the broker"
    return {**known, **{f"alarm {name}": text for name, text in standing.alarms.items()}}


def _slots(settings: AgentSettings) -> dict[str, Any]:
    """Return what came over the air, if anything did."""
    slots = Shelf(settings.state.slots).load()
    known: dict[str, Any] = {"bundle": slots.active[:12]} if slots.active else {}
    if slots.release is not None:
        known["release"] = f"{slots.release.version}: {slots.phase.value}"
    if slots.outcome:
        known["last release"] = slots.outcome
    return known


def _lacking(state: Participant, settings: AgentSettings) -> list[str]:
    """Return the digests of public sets that the server speaks of and that are not here; no file of them is checked."""
    if settings.model.public_set is None:
        return []
    home = PublicSetSpec.from_json((settings.model.public_set / PUBLIC_SET_NAME).read_bytes()).digest
    names = [one.hex() for one in state.named_sets if one != home]
    return [name for name in names if not (settings.state.public_sets / name / PUBLIC_SET_NAME).is_file()]


def _rounds(state: Participant) -> dict[str, Any]:
    known: dict[str, Any] = {"phase": state.phase.value, "warmed up": state.is_warm}
    if state.offer is not None:
        known["round"] = str(state.offer.round)
    if state.objection:
        known["takes no part"] = state.objection
    if state.obstacle:
        known["training waits for"] = state.obstacle
    if state.report is not None and state.report.reason:
        known["ended by"] = state.report.reason
    if state.taken_round is not None:
        known["learned from"] = str(state.taken_round)
    return known


def _commands(seen: Look) -> dict[str, str]:
    """What is under way, and the last end of each name."""
    known = (*(one.command for one in seen.commands.ended), *(one.command for one in seen.commands.open))
    last = {command.command: command for command in known}
    return {name: _word(command) for name, command in sorted(last.items())}


def _word(command: Command) -> str:
    more = command.step or command.reason
    return f"{command.state.value}{f' ({more})' if more else ''}"
