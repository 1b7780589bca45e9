"""Secret labelled probes: what the server knows about a few probes, and no device does.

`canaries.json` is written where the public set is built and lies on the server only. Two disjoint sets: `trust` judges
what devices claim, `release` judges the student; a model picked by the probes that weigh its teachers would flatter
itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.documents import to_json
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import check_hex_digest
from fd_protocol.messages import Slice
from fd_protocol.quantisers import I64

CANARIES_NAME = "canaries.json"


@dataclass(frozen=True, slots=True)
class LabelledProbes:
    """Probes of the public set by index, in ascending order, and the class of each."""

    probes: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.probes) != len(self.labels):
            raise InvalidValueError(f"{len(self.probes)} probes but {len(self.labels)} labels")
        if sorted({*self.probes}) != list(self.probes):
            raise InvalidValueError("probes are not in ascending order")
        if any(value < 0 for value in (*self.probes, *self.labels)):
            raise InvalidValueError("a probe or a label is negative")

    def within(self, part: Slice) -> tuple[I64, I64]:
        """Return (rows of the slice, labels) of those that lie in it."""
        probes, labels = np.array(self.probes, np.int64), np.array(self.labels, np.int64)
        inside = (probes >= part.start) & (probes < part.start + part.count)
        return probes[inside] - part.start, labels[inside]


@dataclass(frozen=True, slots=True)
class Canaries:
    """All that is known about a public set; `public_set_sha256` in hexadecimal."""

    public_set_sha256: str
    trust: LabelledProbes = LabelledProbes()
    release: LabelledProbes = LabelledProbes()

    def __post_init__(self) -> None:
        check_hex_digest(self.public_set_sha256, "public_set_sha256")
        if {*self.trust.probes} & {*self.release.probes}:
            raise InvalidValueError("a probe is a canary for trust and for release")

    @property
    def digest(self) -> bytes:
        """SHA-256 of `to_json`, however the file is laid out that they were read from."""
        return sha256(self.to_json())

    def to_json(self) -> bytes:
        return to_json(self)
