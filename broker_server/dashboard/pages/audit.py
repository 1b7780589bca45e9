"""Every command that was given: who, in which role, what, and what came of it; and orders that still wait."""

from __future__ import annotations

from dataclasses import dataclass

from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import CommandRecord

_ROWS = 200


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The last commands, newest first."""

    commands: tuple[CommandRecord, ...]


def audit_page(look: Look) -> AuditPage:
    """Return what the page shows."""
    return AuditPage(look.chronicle.commands(_ROWS))
