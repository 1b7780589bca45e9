"""FedProto's aggregation, Tan et al. 2022, equation 6: for each class the mean of the devices' mean features.

    C(j) = sum_i w_i(j) C_i(j) / sum_i w_i(j)        w_i(j): rows of class j on device i; 0 = too few to speak

The printed equation divides by the number of devices once more, which would shrink every prototype towards zero; the
weighted mean is meant. Features of different backbones have no common axes: one bundle in the federation, or none of
this.

Not yet on the wire (docs/adr/0013-without-a-public-set.md says what is missing).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from broker_server.rules.voice import UnheardError
from fd_protocol.errors import InvalidValueError
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

MAX_WEIGHT = 1 << 20
_MAX_CODE = 1 << 16
_MAX_TABLES = 1 << 18
"""2^16 (a code) x 2^20 (a weight) x 2^18 tables stay below 2^63."""


@dataclass(frozen=True, slots=True, eq=False)
class PrototypeTable:
    """One device's mean features.

    Attributes:
        device: its name.
        codes: int64 [classes, width], means on the backbone's own scale, 0..65535.
        weights: int64 [classes], 0..MAX_WEIGHT.
    """

    device: str
    codes: I64
    weights: I64

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.weights.shape != self.codes.shape[:1]:
            raise InvalidValueError(f"weights {self.weights.shape} do not go with codes {self.codes.shape}")
        if self.codes.min() < 0 or self.codes.max() >= _MAX_CODE:
            raise InvalidValueError("codes of features lie in 0..65535")
        if self.weights.min() < 0 or self.weights.max() > MAX_WEIGHT:
            raise InvalidValueError(f"weights lie in 0..{MAX_WEIGHT}")


def mean_prototypes(tables: Iterable[PrototypeTable]) -> tuple[F32, I64]:
    """Return the prototypes [classes, width] and the weight behind each [classes]; of weight 0 it is zero, and void.

    The tables are heard once, one at a time; their order changes no bit.

    Raises:
        UnheardError: no table, one device twice, different shapes, or too many.
    """
    sums, weights = np.zeros((0, 0), np.int64), np.zeros(0, np.int64)
    devices: set[str] = set()
    for table in tables:
        if not devices:
            sums, weights = np.zeros_like(table.codes), np.zeros_like(table.weights)
        if table.device in devices or table.codes.shape != sums.shape or len(devices) == _MAX_TABLES:
            raise UnheardError(f"{table.device} speaks twice, of other features than the first, or as one too many")
        devices.add(table.device)
        sums += table.weights[:, None] * table.codes
        weights += table.weights
    if not devices:
        raise UnheardError("nobody speaks")
    return (sums / np.maximum(1, weights)[:, None]).astype(np.float32), weights
