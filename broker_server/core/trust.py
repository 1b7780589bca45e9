"""What devices have earned, as it goes from round to round; `rules.canary_trust` and `rules.expguard` say how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from broker_server.rules.voice import WEIGHT_ONE
from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class TrustTable:
    """What each device has earned. A device that is not in it has full trust: nothing is known against it.

    Attributes:
        classes: of the task.
        by_device: int64 [classes] in 1..WEIGHT_ONE.
        method: the rule that it was earned under; to another rule it means nothing.
    """

    classes: int
    by_device: Mapping[str, I64] = field(default_factory=dict)
    method: str = ""

    @classmethod
    def under(cls, method: str, data: bytes, classes: int) -> TrustTable:
        """Return the table in `data` where it was earned under this rule, else an empty one.

        What another rule gave may even be of other classes: those of a feature, where the probes are features.

        Raises:
            DecodeError: it is no table.
        """
        if not data or _parts(data)[0] != method:
            return cls(classes)
        return cls.from_bytes(data, classes)

    def of(self, device: str) -> I64:
        """Return int64 [classes]."""
        known = self.by_device.get(device)
        return np.full(self.classes, WEIGHT_ONE, np.int64) if known is None else known

    def means(self) -> dict[str, float]:
        """Return the mean trust over classes of each device in the table, 0..1."""
        return {device: float(trust.mean()) / WEIGHT_ONE for device, trust in self.by_device.items()}

    def onto(self, before: TrustTable) -> TrustTable:
        """Return this table with the devices of the one before that it does not speak of, as they stood there.

        Both are of one rule: who is away for a while comes back as it went.
        """
        return TrustTable(self.classes, {**before.by_device, **self.by_device}, self.method)

    def to_bytes(self) -> bytes:
        rows = {device: trust.astype("<u2").tobytes() for device, trust in self.by_device.items()}
        return cbor.encode([self.method, rows])

    @classmethod
    def from_bytes(cls, data: bytes, classes: int) -> TrustTable:
        """Return the table that `to_bytes` wrote.

        Raises:
            DecodeError: it did not, or it is of another number of classes.
        """
        method, rows = _parts(data)
        return cls(classes, {str(device): _row(row, classes) for device, row in rows.items()}, method)


def reassigned(table: bytes, device: str, heir: str = "") -> bytes:
    """Return an encoded table where `heir` has the trust of `device`, or where nobody has it.

    Raises:
        DecodeError: it is not a table.
    """
    method, rows = _parts(table)
    left = {name: row for name, row in rows.items() if name != device}
    return cbor.encode([method, {**left, heir: rows[device]} if heir and device in rows else left])


def _parts(table: bytes) -> tuple[str, dict[int | str, cbor.Item]]:
    """Return the rule and the rows of an encoded table; one from before tables named their rule is of competence."""
    match cbor.decode(table, max_items=2 * len(table) + 1):
        case [str(method), dict(rows)]:
            return method, rows
        case dict(rows):
            return "competence", rows
        case _:
            raise DecodeError("malformed", "not a table of trust")


def _row(row: cbor.Item, classes: int) -> I64:
    if not isinstance(row, bytes) or len(row) != 2 * classes:
        raise DecodeError("malformed", f"a row of trust does not have {classes} classes")
    return np.frombuffer(row, "<u2").astype(np.int64)
