"""Where a federation stands, read from its database; the server may be running meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from broker_server.config import Config
from broker_server.core.events import Release
from broker_server.core.federation import Federation, lacking_staged, wake_at_ms
from broker_server.journal import Journal
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store


@dataclass(frozen=True, slots=True)
class Status:
    """What an operator wants to know: plain values under the words of the settings and the code."""

    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Status:
        """Return the status of the server of the settings file at `path`.

        Raises:
            ConfigError: the file is wrong at a key.
            StartError: the server has never run, or its database cannot be read.
        """
        config = load_toml(path, Config)
        with blame(path, "state.folder"):
            if not config.state.store.is_file():
                raise MissingArtifactError(config.state.store)
            with Store.view(config.state.store) as store:
                journal = Journal(store, config.federation)
                return cls(
                    {
                        "federation": config.federation,
                        "trust": config.trust,
                        **_facts(journal.replay()),
                        **journal.counts(),
                    }
                )

    def lines(self) -> str:
        """Return one line a fact."""
        flat = self._flat()
        width = max(len(name) for name, _ in flat) + 2
        return "\n".join(f"{name:<{width}}{_word(value)}" for name, value in flat)

    def _flat(self) -> list[tuple[str, Any]]:
        flat: list[tuple[str, Any]] = []
        for name, value in self.facts.items():
            if isinstance(value, dict):
                flat += [(f"{name}.{key}", inner) for key, inner in value.items()]
            else:
                flat.append((name, value))
        return flat


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _of_editions(state: Federation) -> dict[str, Any]:
    current, staged = state.editions.current, state.editions.staged
    facts = {} if current is None else {"edition": current.number, "public_set": current.public_set.hex()}
    return facts if staged is None else {**facts, "staged": staged.number, "lacking": len(lacking_staged(state))}


def _of_release(current: Release | None) -> dict[str, Any]:
    if current is None:
        return {"version": "the first bundle"}
    facts = {"version": current.version, "round": current.round.number, "bundle": current.bundle.hex()}
    return {**facts, "package_bytes": current.package_bytes, "verified": current.is_verified}


def _facts(state: Federation) -> dict[str, Any]:
    facts: dict[str, Any] = {"epoch": f"{state.epoch:016x}", "round": state.number, "online": len(state.online)}
    facts |= {"paused": True} if state.is_paused else {}
    wake_ms = wake_at_ms(state)
    if wake_ms and not state.has_open_round:
        facts["next_round"] = datetime.fromtimestamp(wake_ms / 1000, timezone.utc).isoformat(timespec="seconds")
    if state.round is not None:
        current = state.round
        facts |= {"phase": current.phase.value, "heard": current.heard, "invited": current.invited}
        facts |= {"quorum": current.offer.quorum, "method": current.offer.method}
        asked = current.offer.slice
        facts["asks"] = f"probes {asked.start} to {asked.start + asked.count - 1}"
        facts |= {"warm_up": True} if current.is_warm_up else {}
        facts |= {"trial_of_edition": current.trial_of} if current.trial_of else {}
        facts |= {"reason": current.reason} if current.reason else {}
    if state.consensus is not None:
        facts["consensus"] = {"round": state.consensus.round.number, **state.consensus.metrics}
    if state.student is not None:
        facts["student"] = {"round": state.student.round.number, **state.student.metrics}
    if state.editions.count > 1:
        facts["probes"] = _of_editions(state)
    if state.releases.count:
        facts["release"] = _of_release(state.releases.current)
    return facts
