"""Trust: how much a device's claim of a class weighs, earned on secret labelled probes (canaries) the round before.

    g   = (sum w correct + s / C) / (sum w + s)              the device's precision, from chance level 1 / C
    t_c = ((sum_c w correct + s g) / (sum_c w + s))^3        its precision where it claims class c, from g

w is the device's competence weight on the canary, s the smoothing: a device is not judged where it claims to know
nothing, and a few lucky claims earn little. Per class, because a device that lies about one class alone keeps its
average; cubed, so that a weak claim loses to a strong one (docs/adr/0004-methods.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker_server.rules.voice import WEIGHT_ONE, to_weights
from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.quantisers import I64

SMOOTHING = 3.0
POWER = 3


def earned(claims: I64, labels: I64, weights: npt.NDArray[np.float64], classes: int) -> I64:
    """Return the trust of each class, int64 [classes] in 1..WEIGHT_ONE.

    Args:
        claims: the class that the device holds likeliest on each canary, [q].
        labels: the true class, [q].
        weights: the device's competence there, [q] in 0..1.
        classes: C.
    """
    right = weights * (claims == labels)
    overall = (right.sum() + SMOOTHING / classes) / (weights.sum() + SMOOTHING)
    claimed = np.bincount(claims, weights, classes)
    confirmed = np.bincount(claims, right, classes)
    return to_weights(((confirmed + SMOOTHING * overall) / (claimed + SMOOTHING)) ** POWER)


@dataclass(frozen=True, slots=True)
class TrustTable:
    """What each device earned in a round. A device that is not in it has full trust: nothing is known against it."""

    classes: int
    by_device: Mapping[str, I64] = field(default_factory=dict)

    def of(self, device: str) -> I64:
        """Return int64 [classes]."""
        known = self.by_device.get(device)
        return np.full(self.classes, WEIGHT_ONE, np.int64) if known is None else known

    def means(self) -> dict[str, float]:
        """Return the mean trust over classes of each device in the table, 0..1."""
        return {device: float(trust.mean()) / WEIGHT_ONE for device, trust in self.by_device.items()}

    def to_bytes(self) -> bytes:
        return cbor.encode({device: trust.astype("<u2").tobytes() for device, trust in self.by_device.items()})

    @classmethod
    def from_bytes(cls, data: bytes, classes: int) -> TrustTable:
        """Return the table that `to_bytes` wrote.

        Raises:
            DecodeError: it did not, or it is of another number of classes.
        """
        rows = cbor.decode(data, max_items=len(data) + 1)
        if not isinstance(rows, dict):
            raise DecodeError("malformed", "not a table of trust")
        return cls(classes, {str(device): _row(row, classes) for device, row in rows.items()})


def reassigned(table: bytes, device: str, heir: str = "") -> bytes:
    """Return an encoded table where `heir` has the trust of `device`, or where nobody has it.

    Raises:
        DecodeError: it is not a table.
    """
    rows = cbor.decode(table, max_items=len(table) + 1)
    if not isinstance(rows, dict):
        raise DecodeError("malformed", "not a table of trust")
    left = {name: row for name, row in rows.items() if name != device}
    return cbor.encode({**left, heir: rows[device]} if heir and device in rows else left)


def _row(row: cbor.Item, classes: int) -> I64:
    if not isinstance(row, bytes) or len(row) != 2 * classes:
        raise DecodeError("malformed", f"a row of trust does not have {classes} classes")
    return np.frombuffer(row, "<u2").astype(np.int64)
