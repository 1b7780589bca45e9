"""Where a device stands, read from its memory; the device may be running meanwhile."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edge_agent.journal import Journal
from edge_agent.participant import Participant
from edge_agent.presence import boot_of
from edge_agent.settings import AgentSettings
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.store import Store


def facts(path: Path) -> dict[str, str]:
    """Return what is worth knowing about the device of the settings file at `path`, by name.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: the device has never run, or its memory cannot be read.
    """
    settings = load_toml(path, AgentSettings)
    with blame(path, "state.folder"):
        if not settings.state.store.is_file():
            raise MissingArtifactError(settings.state.store)
        with closing(Store.open(settings.state.store)) as store:
            known = {"device": settings.device.id, "federation": settings.device.federation}
            return {**known, "starts": str(boot_of(store)), **_facts(Journal(store, known["federation"]).replay())}


def _facts(state: Participant) -> dict[str, str]:
    known = {"phase": state.phase.value, "warmed up": "yes" if state.is_warm else "no"}
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
