"""How a device is, in named numbers and words: what `diag` answers a server, and heads an owner's archive.

Every name stands in this file, and every value is a number, a digest, a version or a word that our own code has chosen:
no line of a log, no name of a file, no text of a library, and no count of private rows.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.care import host
from edge_agent.care.vitals import Vitals
from edge_agent.round import participant
from edge_agent.round.events import Send
from edge_agent.round.participant import Participant

_SHORT = 12
_FOLLOWS_FROM_ROWS = frozenset({
    "log_warnings", "log_errors", "failures", "worker_starts", "supervisor_mb", "free_disk_mb", "free_memory_mb",
    "temperature_c", "database_kb",
})  # fmt: skip
"""Numbers that other private rows could have changed: what is kept of them, what went wrong over them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a summary is made of.

    Attributes:
        version: of the agent.
        state: what the journal folds to.
        vitals: of the life that goes on, or ended without a word; None: it tells nothing.
        runtime: that the model runs on.
        bundle, public_set: digests; empty = unknown, or none.
        store: path of the database; its folder is the state's.
        now_utc_s: by this machine's clock.
        blob_bytes: size of a blob in the store by its digest, where it is there.
        remote: values that the server has changed.
        log_level: that counts now.
        log_counts: records of this life, by level.
    """

    version: str
    state: Participant
    vitals: Vitals | None
    runtime: str
    bundle: bytes
    public_set: bytes
    store: Path
    now_utc_s: float
    blob_bytes: Mapping[bytes, int]
    remote: Mapping[str, str]
    log_level: str
    log_counts: Mapping[str, int]


def summary(seen: Seen) -> dict[str, str]:
    """Return the device in some thirty entries; what is unknown is left out."""
    told = {**_program(seen), **_federation(seen), **_life(seen), **_machine(seen)}
    told |= {f"set {key}": text for key, text in seen.remote.items()}
    return {name: text for name, text in told.items() if text}


def under_terms(told: Mapping[str, str]) -> dict[str, str]:
    """Return what of a summary may leave a device under privacy terms."""
    return {name: text for name, text in told.items() if name not in _FOLLOWS_FROM_ROWS}


def waiting(state: Participant) -> list[Send]:
    """Return what the outbox holds."""
    return [effect for effect in participant.outstanding(state) if isinstance(effect, Send)]


def _program(seen: Seen) -> dict[str, str]:
    return {
        "agent": seen.version,
        "python": platform.python_version(),
        "system": f"{platform.system().lower()} {platform.machine()}",
        "runtime": seen.runtime,
        "bundle": seen.bundle.hex()[:_SHORT],
        "public_set": seen.public_set.hex()[:_SHORT],
        "log_level": seen.log_level,
        **{f"log_{level}s": str(seen.log_counts[level]) for level in ("warning", "error") if level in seen.log_counts},
    }


def _federation(seen: Seen) -> dict[str, str]:
    state = seen.state
    sends = waiting(state)
    return {
        "phase": state.phase.value,
        "round": str(state.offer.round) if state.offer is not None else "",
        "objection": state.objection,
        "learned_from": str(state.taken_round) if state.taken_round is not None else "",
        "warmed_up": "yes" if state.is_warm else "no",
        "failures": str(state.failures),
        "outbox_payloads": str(len(sends)),
        "outbox_bytes": str(sum(seen.blob_bytes.get(send.payload, 0) for send in sends)),
    }


def _life(seen: Seen) -> dict[str, str]:
    vitals = seen.vitals
    if vitals is None:
        return {}
    return {
        "boot": str(vitals.boot),
        "uptime_s": str(max(0, round(seen.now_utc_s) - vitals.since_utc_s)) if vitals.since_utc_s else "",
        "connected": "yes" if vitals.is_connected else "no",
        "worker_ready": "yes" if vitals.is_worker_ready else "no",
        "worker_starts": str(vitals.worker_starts),
        "problem": vitals.problem,
        "supervisor_mb": _rounded(host.resident_mb(vitals.pid) if vitals.pid else None),
    }


def _machine(seen: Seen) -> dict[str, str]:
    wal = seen.store.with_name(f"{seen.store.name}-wal")
    database = sum(file.stat().st_size for file in (seen.store, wal) if file.is_file())
    return {
        "clock_utc_s": str(round(seen.now_utc_s)),
        "clock_set": "yes" if seen.now_utc_s >= host.FIRST_YEAR_UTC_S else "no",
        "free_disk_mb": _rounded(host.free_disk_mb(seen.store.parent)),
        "free_memory_mb": _rounded(host.memory_mb("MemAvailable")),
        "temperature_c": _rounded(host.temperature_c()),
        "database_kb": str(database // 1024),
    }


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
