"""When private rows count as other rows than before.

A new epoch makes the device say anew where it is competent, and refresh what it trains on: neither is worth it for one
row. So the epoch moves on when so many labelled rows have come, gone or been relabelled since it last did:

    changes >= max(20, rows / 10)

20 rows are also the least that a competence map is made of (`clustering`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.schema import keyed

EPOCH_ROWS = 20
EPOCH_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Epoch:
    """Its number, and how many rows have changed since it began."""

    number: int = keyed(1, default=0)
    changes: int = keyed(2, default=0)

    def after(self, changes: int, rows: int) -> Epoch:
        """Return the epoch when `changes` more rows have changed and there are `rows` now."""
        total = self.changes + changes
        if total >= max(EPOCH_ROWS, rows * EPOCH_SHARE):
            return Epoch(self.number + 1)
        return Epoch(self.number, total)
