"""What a recipe says about quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fd_protocol.errors import InvalidValueError

Method: TypeAlias = Literal["minmax", "percentile", "entropy", "dynamic", "none"]


@dataclass(frozen=True, slots=True)
class QuantisationTerms:
    """How a backbone becomes int8.

    Attributes:
        method: how the range of an activation is found. `minmax`: all values seen. `percentile`: all but the outermost.
            `entropy`: the range that loses least of the distribution (Migacz 2017). `dynamic`: anew for every batch, in
            dense layers only: for networks of GRU or attention. `none`: the backbone and its features stay float.
        percentile: share of the values, in percent, below the upper end and above the lower end of a range.
        reduce_range: 7-bit weights, for programs not ours on x86 processors without VNNI: sums of 8-bit products
            saturate there, unless onnxruntime is told to make weights unsigned, as our programs do.
        tolerance: accuracy (0..1) that the int8 backbone may lose on the calibration samples before layers go back to
            float, worst first; without labels, share of the answers that it may change. None = all layers in int8.
        calibration_rows: most samples that are looked at.
    """

    method: Method = "minmax"
    percentile: float = 99.99
    reduce_range: bool = False
    tolerance: float | None = None
    calibration_rows: int = 200

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise InvalidValueError(f"a percentile lies above 50 and not above 100, not at {self.percentile}")
        if self.tolerance is not None and not 0.0 <= self.tolerance < 1.0:
            raise InvalidValueError(f"a tolerance is a share 0 <= t < 1 (0.005 is half a point), not {self.tolerance}")
        if self.calibration_rows < 1:
            raise InvalidValueError(f"calibration needs a row, not {self.calibration_rows}")

    @property
    def weight_limit(self) -> int:
        """The greatest absolute code of a weight: 64 * 255 * 2 still fits the 16 bits that old processors add in."""
        return 64 if self.reduce_range else 127
