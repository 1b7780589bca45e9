"""Soft labels <-> the body of a message: quantise, subtract a base, pack, deflate; and back, trusting nothing.

    SoftLabels --quantise--> Codes --encode_body(base)--> bytes --decode_body(base)--> Codes --integers--> consensus

A difference to an earlier payload (`base`) is taken code by code, modulo the code's alphabet: it loses nothing, and
most of it is zero when a model has changed little. Differences of u4-sqrt travel as runs, everything else is packed
(`fd_protocol.bodies`). Codes, not probabilities, are what both sides keep: a payload sent again, with or without its
base, is the same codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_protocol import cbor
from fd_protocol.bodies import U8, read_body, read_runs, write_body, write_runs
from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.quantisers import I64, Quantiser, quantiser
from fd_protocol.soft_labels import F32, SoftLabels
from fd_protocol.terms import MAX_CELLS, Codec

_RUN_BITS = 4
"""Differences of 8-bit codes are within 3 % of their entropy as they are; of 4-bit codes only as runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Quantised soft labels.

    Attributes:
        codec: how; `fd_protocol.quantisers` has the formulas.
        classes: of a row.
        array: uint8 [n, columns of the codec]. Read-only from here.
        top_k: classes named in a row, 0 for any codec but top-k and top-k-zipf.
    """

    codec: Codec
    classes: int
    array: U8
    top_k: int = 0

    def __post_init__(self) -> None:
        columns = self._quantiser.columns
        if self.array.dtype != np.uint8 or self.array.ndim != 2 or self.array.shape[1] != columns or not len(self):
            raise InvalidValueError(f"codes are uint8 [n, {columns}], not {self.array.dtype} {list(self.array.shape)}")
        self.array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.array)

    def is_like(self, other: Codes) -> bool:
        """Whether one may be the base of the other."""
        return self._shape == other._shape

    def integers(self) -> I64:
        """Return int64 [n, classes], `quantisers.ONE` for probability 1: sums of them are exact in any order."""
        return self._quantiser.integers(self.array)

    def probabilities(self) -> F32:
        """Return float32 [n, classes], rows summing to 1."""
        integers = self.integers()
        probabilities: F32 = (integers / integers.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities

    def to_bytes(self) -> bytes:
        """Return a form for storage that says all of itself."""
        return cbor.encode([self.codec.value, self.classes, self.top_k, len(self), encode_body(self)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Codes:
        """Return the codes that `to_bytes` wrote.

        Raises:
            DecodeError: it did not.
        """
        match cbor.decode(data):
            case [str(codec), int(classes), int(top_k), int(count), bytes(body)] if 0 < count * classes <= MAX_CELLS:
                try:
                    return decode_body(body, Codec(codec), count, classes, top_k)
                except ValueError as error:  # no such codec, or not for so many classes
                    raise DecodeError("malformed", str(error)) from error
            case _:
                raise DecodeError("malformed", "not stored codes")

    @property
    def _quantiser(self) -> Quantiser:
        return quantiser(self.codec, self.classes, self.top_k)

    @property
    def _shape(self) -> tuple[object, ...]:
        return self.codec, self.classes, self.top_k, len(self)


def quantise(labels: SoftLabels, codec: Codec, top_k: int = 0) -> Codes:
    """Return the codes of `labels`.

    Raises:
        InvalidValueError: the codec cannot carry that many classes, or `top_k` does not go with it.
    """
    classes = labels.probabilities.shape[1]
    return Codes(codec, classes, quantiser(codec, classes, top_k).quantise(labels.probabilities), top_k)


def encode_body(codes: Codes, base: Codes | None = None) -> bytes:
    """Return the body of `codes`, as a difference to `base` where there is one.

    Raises:
        InvalidValueError: the base has another codec or shape.
    """
    if base is not None and not codes.is_like(base):
        raise InvalidValueError("a base has the codec and the shape of its codes")
    bits = codes._quantiser.bits  # noqa: SLF001 - this module's own class
    if base is None:
        return write_body(codes.array, bits)
    difference = (codes.array - base.array) & _mask(bits)
    return write_runs(difference) if bits == _RUN_BITS else write_body(difference, bits)


def decode_body(
    body: bytes, codec: Codec, count: int, classes: int, top_k: int = 0, *, base: Codes | None = None
) -> Codes:
    """Return the codes in `body`: `count` rows of `classes` classes, as the offer asked for, whatever a peer says.

    Raises:
        DecodeError: `malformed_body`, `wrong_length`, `invalid_rows`, or `unknown_base` (of another codec or shape).
    """
    rows = quantiser(codec, classes, top_k)
    if base is not None and base._shape != (codec, classes, top_k, count):  # noqa: SLF001 - this module's own class
        raise DecodeError("unknown_base", "of another codec or shape")
    cells = count * rows.columns
    is_runs = base is not None and rows.bits == _RUN_BITS
    flat = read_runs(body, cells) if is_runs else read_body(body, cells, rows.bits)
    array = flat.reshape(count, rows.columns)
    if base is not None:
        array = (array + base.array) & _mask(rows.bits)
    rows.check(array)
    return Codes(codec, classes, array, top_k)


def _mask(bits: int) -> np.uint8:
    return np.uint8((1 << bits) - 1)
