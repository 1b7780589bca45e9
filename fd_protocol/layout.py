"""Where each trainable parameter lies in theta, the one flat float32 vector that stands for a tail's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError, shown
from fd_protocol.schema import keyed


@dataclass(frozen=True, slots=True)
class ParameterSlot:
    """One parameter: its initializer's name in the tail, its first element in theta, its shape (row-major).

    It has at most 8 extents and 2^28 elements.
    """

    name: str = keyed(1)
    offset: int = keyed(2)
    shape: tuple[int, ...] = keyed(3)

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidValueError("a parameter needs a name")
        # How many extents comes first: the product of a hundred thousand takes seconds.
        if len(self.shape) > 8 or any(extent < 1 for extent in self.shape) or self.size > 1 << 28:
            raise InvalidValueError(f"parameter {shown(self.name)} must have at most 8 positive extents, 2^28 elements")
        if self.offset < 0:
            raise InvalidValueError(f"parameter {shown(self.name)} starts before theta")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class ThetaLayout:
    """Parameters in the order of the tail's initializers, without gaps; one is theta[slot.offset : slot.end]."""

    slots: tuple[ParameterSlot, ...] = keyed(1)

    def __post_init__(self) -> None:
        if not self.slots:
            raise InvalidValueError("a layout needs a parameter")
        if len({slot.name for slot in self.slots}) < len(self.slots):
            raise InvalidValueError("two parameters share a name")
        end = 0
        for slot in self.slots:
            if slot.offset != end:
                raise InvalidValueError(f"parameter {shown(slot.name)} does not start at {end}")
            end = slot.end

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> ThetaLayout:
        """The layout of (name, shape) pairs laid end to end."""
        slots: list[ParameterSlot] = []
        for name, shape in shapes:
            slots.append(ParameterSlot(name, slots[-1].end if slots else 0, shape))
        return cls(tuple(slots))

    @property
    def size(self) -> int:
        """Number of elements of theta."""
        return self.slots[-1].end
