"""A contribution as the store keeps it: decoded and checked, so that reading it again needs no base and no zlib."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol.messages import Codec, Contribution, Slice
from fd_protocol.payload import Codes
from fd_protocol.schema import decode, encode, keyed


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Codes, and what they are codes of."""

    slice: Slice = keyed(1)
    temperature: float = keyed(2)
    codec: Codec = keyed(3)
    array: bytes = keyed(4)
    """Of `Codes.array`."""
    top_k: int = keyed(5, default=0)

    @classmethod
    def of(cls, contribution: Contribution, codes: Codes) -> StoredLabels:
        return cls(contribution.slice, contribution.temperature, codes.codec, codes.array.tobytes(), codes.top_k)

    @property
    def codes(self) -> Codes:
        array = np.frombuffer(self.array, np.uint8).reshape(self.slice.count, -1)
        return Codes(self.codec, self.slice.classes, array, self.top_k)

    def to_bytes(self) -> bytes:
        return encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredLabels:
        """Return the labels that `to_bytes` wrote."""
        return decode(cls, data)
