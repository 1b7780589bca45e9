"""How a device is at the moment, beyond what its memory tells: a small file beside the running program.

Whoever asks (`status`, a label page, a monitor) reads it; nobody needs it, so it is replaced whole and never fsynced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.agent import Agent
from edge_agent.process.remedies import remedy
from edge_agent.worker import WorkerStanding
from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically
from fd_runtime.link import LinkDown, LinkUp

CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class Standing:
    """One moment.

    Attributes:
        pid: of the supervisor.
        phase: of the round.
        connection: `connected`, or why not.
        hindrance: one word for why not (`fd_runtime.link.Hindrance`); empty = connected.
        advice: what the owner may do about it.
        worker_pid: of the worker; 0 = it is down, or about to be started again.
        worker_starts: in this life of the supervisor.
        last_death: why the worker before this one ended.
        alarms: what is wrong, by name.
        waiting: messages that wait for the broker.
        lost: of those, how many never reached it, by reason.
        measured: the worker's numbers, by name.
    """

    pid: int
    phase: str
    connection: str
    hindrance: str = ""
    advice: str = ""
    worker_pid: int = 0
    worker_starts: int = 0
    last_death: str = ""
    alarms: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The whole of it in one line, for `systemctl status`."""
        alarms = "".join(f"; {name}: {text}" for name, text in self.alarms.items())
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.phase}; {self.connection}{advice}{alarms}"


def standing_of(agent: Agent, worker: WorkerStanding, pid: int) -> Standing:
    """Return how a device is."""
    match agent.connection:
        case LinkDown(reason, kind) as down:
            connection, hindrance, advice = f"not connected: {reason}", kind.value, remedy(down)
        case LinkUp():
            connection, hindrance, advice = CONNECTED, "", ""
        case None:
            connection, hindrance, advice = "connecting", "", ""
    return Standing(
        pid=pid,
        phase=agent.state.phase.value,
        connection=connection,
        hindrance=hindrance,
        advice=advice,
        worker_pid=worker.pid,
        worker_starts=worker.starts,
        last_death=worker.last_death,
        alarms=dict(agent.alarms),
        waiting=agent.waiting,
        lost=agent.lost,
        measured=dict(agent.measured),
    )


def save(path: Path, standing: Standing) -> None:
    """Raises: OSError: no room, or no folder."""
    write_atomically(path, to_json(standing), is_durable=False)


def load(path: Path) -> Standing | None:
    """Return what a running device says of itself; None: nothing, or in another version's words."""
    try:
        return from_json(Standing, path.read_bytes(), Place(path, InvalidDocumentError, {}))
    except (OSError, InvalidDocumentError):
        return None
