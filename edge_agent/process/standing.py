"""How a device is at the moment, beyond what its memory tells: a small file beside the running program.

The herald alone writes it; `edge_agent.care.look` alone reads it, for `status`, `health`, `doctor` and who else asks.
Nobody needs it, so it is replaced whole and never fsynced: after a power cut it would be void anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.care.vitals import Vitals
from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically


@dataclass(frozen=True, slots=True)
class Standing:
    """One moment.

    Attributes:
        vitals: what decides whether the device is well.
        phase: of the round.
        hindrance: one word for why there is no connection (`links.link.Hindrance`); empty: there is, or will be.
        advice: what the owner may do about it.
        worker_pid: of the worker; 0 = it is down, or about to be started again.
        last_death: why the worker before this one ended.
        alarms: what is wrong, by name.
        waiting: messages that wait for the broker.
        lost: of those, how many never reached it, by reason.
        measured: the worker's numbers, by name.
    """

    vitals: Vitals
    phase: str
    hindrance: str = ""
    advice: str = ""
    worker_pid: int = 0
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
        return f"{self.phase}; {self.vitals.connection}{advice}{alarms}"


def save(path: Path, standing: Standing) -> None:
    """Raises: OSError: no room, or no folder."""
    write_atomically(path, to_json(standing), is_durable=False)


def load(path: Path) -> Standing | None:
    """Return what a running device says of itself; None: nothing, or in another version's words."""
    try:
        return from_json(Standing, path.read_bytes(), Place(path, InvalidDocumentError))
    except (OSError, InvalidDocumentError):
        return None
