"""One quantiser per codec: probability rows <-> rows of small codes, and codes -> exact integers.

    codec     a row's codes                                    what a row decodes to, before normalising
    f16       high bytes of p as float16, then low bytes       p
    u8-sqrt   rint(255 sqrt(p_i)), one a class                 code_i^2
    u4-sqrt   rint(15 sqrt(p_i)), one a class                  code_i^2
    top-k     the k likeliest classes in ascending order,      code_i^2 for these; what is missing to 255^2 is spread
              then rint(255 sqrt(p_i)) of each                 evenly over the other classes
    top-k-zipf                                                 the same, spread in proportion to 1 / (i + 3) of class i
    top-1     the likeliest class                              0.9 for it, 0.1 spread evenly over the others

A class takes one byte up to 256 classes, else two: all high bytes, then all low bytes.

`top-k-zipf` is for words, and whatever else has classes in the order of their frequency, the first the most frequent.
1 / (rank + b) is Zipf's law as Mandelbrot 1953 bent it for the first ranks; here b = 2, with ranks from 1. Of thousands
of words the likeliest few hold little of the probability. Where the rest is spread evenly, all rare words seem alike.

Square roots spend the codes where distributions differ: with L = 255 (u8) or 15 (u4) levels and rows of c classes
KL(decoded || p) <= 2.25 c / (L^2 s) nats, s = sum(code^2) / L^2. (Write q = code^2/L^2. A code of 0 adds p <= 1/4L^2 to
chi2 = sum (q-p)^2/p, any other at most (3/2L)^2; and KL(q/s || p) <= chi2/s.)

Integers, not floats, enter the consensus: their sums are the same in any order and on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fd_protocol.bodies import U8
from fd_protocol.errors import DecodeError
from fd_protocol.soft_labels import F32, ROW_TOLERANCE
from fd_protocol.terms import Codec, check_codec

I64: TypeAlias = npt.NDArray[np.int64]

ONE = 1 << 20
"""The integer that stands for probability 1."""
TOP_1_REST = ONE // 10
"""What top-1 leaves to the classes it does not name: label smoothing of 0.1 (Szegedy et al. 2016, section 7)."""

_U8_LEVELS, _U4_LEVELS = 255, 15


class Quantiser(Protocol):
    """A codec for rows of a known number of classes."""

    @property
    def bits(self) -> int:
        """Of a code: 8 or 4."""
        ...

    @property
    def columns(self) -> int:
        """Codes in a row."""
        ...

    def quantise(self, probabilities: F32) -> U8:
        """Return the codes [n, columns] of rows [n, classes] that sum to 1."""
        ...

    def check(self, codes: U8) -> None:
        """Refuse what `quantise` cannot have made.

        Raises:
            DecodeError: `invalid_rows`.
        """
        ...

    def integers(self, codes: U8) -> I64:
        """Return int64 [n, classes]; each row sums to `ONE`, but for the rounding of each class by half a unit."""
        ...


@lru_cache
def quantiser(codec: Codec, classes: int, top_k: int) -> Quantiser:
    """Return the quantiser of a codec.

    Raises:
        InvalidValueError: the codec cannot carry that many classes, or `top_k` does not go with it.
    """
    check_codec(codec, classes, top_k)
    match codec:
        case Codec.F16:
            return _Half(classes)
        case Codec.U8_SQRT:
            return _Sqrt(classes, _U8_LEVELS, bits=8)
        case Codec.U4_SQRT:
            return _Sqrt(classes, _U4_LEVELS, bits=4)
        case Codec.TOP_K | Codec.TOP_K_ZIPF:
            return _TopK(classes, top_k, follows_zipf=codec is Codec.TOP_K_ZIPF)
        case Codec.TOP_1:
            return _TopOne(classes)


@dataclass(frozen=True, slots=True)
class _Half:
    classes: int
    bits: int = 8

    @property
    def columns(self) -> int:
        return 2 * self.classes

    def quantise(self, probabilities: F32) -> U8:
        return _to_planes(probabilities.astype(np.float16).view(np.uint16))

    def check(self, codes: U8) -> None:
        _require(not (codes[:, : self.classes] >> 7).any(), "a value has a sign")
        # Rounding to float16 moves p by p 2^-11, or by 2^-25 where p is subnormal. NaN and infinity fail as well.
        slack = ROW_TOLERANCE + 2.0**-11 + self.classes * 2.0**-25
        _require(bool((np.abs(self._values(codes).sum(axis=1) - 1.0) <= slack).all()), "a row's sum is not 1")

    def integers(self, codes: U8) -> I64:
        # Exact: a float16 is a multiple of 2^-24. Times 2^24 and `ONE` the largest, 65504, stays below 2^60.
        return _normalise((self._values(codes) * 2.0**24).astype(np.int64))

    def _values(self, codes: U8) -> npt.NDArray[np.float64]:
        return _from_planes(codes).view(np.float16).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Sqrt:
    classes: int
    levels: int
    bits: int

    @property
    def columns(self) -> int:
        return self.classes

    def quantise(self, probabilities: F32) -> U8:
        return _sqrt_codes(probabilities, self.levels)

    def check(self, codes: U8) -> None:
        low, high = _sum_bounds(self.classes, self.levels)
        sums = _sums_of_squares(codes)
        _require_between(sums, low, high)

    def integers(self, codes: U8) -> I64:
        return _normalise(_squares(codes))


@dataclass(frozen=True, slots=True)
class _TopK:
    classes: int
    top_k: int
    follows_zipf: bool = False
    bits: int = 8

    @property
    def columns(self) -> int:
        return self.top_k * (_index_bytes(self.classes) + 1)

    def quantise(self, probabilities: F32) -> U8:
        # A stable sort of -p: ties go to the lower class, so equal rows give equal codes everywhere.
        likeliest = np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k], axis=1)
        values = _sqrt_codes(np.take_along_axis(probabilities, likeliest, axis=1), _U8_LEVELS)
        return np.concatenate([_write_classes(likeliest, self.classes), values], axis=1)

    def check(self, codes: U8) -> None:
        named, values = self._split(codes)
        _check_classes(named, self.classes)
        _require(bool((np.diff(named, axis=1) > 0).all()), "classes are not in ascending order")
        _, high = _sum_bounds(self.top_k, _U8_LEVELS)
        sums = _sums_of_squares(values)
        _require_between(sums, 1, high)

    def integers(self, codes: U8) -> I64:
        named, values = self._split(codes)
        squares = _squares(values)
        sums = squares.sum(axis=1, keepdims=True)
        rest = np.maximum(_U8_LEVELS**2 - sums, 0)
        if self.follows_zipf:
            weights = _zipf(self.classes)
            others = weights.sum() - weights[named].sum(axis=1, keepdims=True)
            integers = _divide(rest * ONE * weights, (sums + rest) * others)
        else:
            others = self.classes - self.top_k
            integers = np.repeat(_divide(rest * ONE, (sums + rest) * others), self.classes, axis=1)
        np.put_along_axis(integers, named, _divide(squares * ONE, sums + rest), axis=1)
        return integers

    def _split(self, codes: U8) -> tuple[I64, U8]:
        return _read_classes(codes[:, : -self.top_k], self.classes), codes[:, -self.top_k :]


@dataclass(frozen=True, slots=True)
class _TopOne:
    classes: int
    bits: int = 8

    @property
    def columns(self) -> int:
        return _index_bytes(self.classes)

    def quantise(self, probabilities: F32) -> U8:
        return _write_classes(probabilities.argmax(axis=1)[:, None], self.classes)

    def check(self, codes: U8) -> None:
        _check_classes(_read_classes(codes, self.classes), self.classes)

    def integers(self, codes: U8) -> I64:
        others = self.classes - 1
        rest = (TOP_1_REST + others // 2) // others
        integers = np.full((len(codes), self.classes), rest, np.int64)
        np.put_along_axis(integers, _read_classes(codes, self.classes), ONE - others * rest, axis=1)
        return integers


@lru_cache
def _zipf(classes: int) -> I64:
    """Return floor(2^20 / (i + 3)) of each class i, [classes].

    A rest of at most 255^2 < 2^16 times `ONE` = 2^20 times these < 2^19 stays below 2^55; their sum is below 2^24.
    """
    return ONE // (np.arange(classes, dtype=np.int64) + 3)


def _sqrt_codes(probabilities: F32, levels: int) -> U8:
    return np.rint(np.sqrt(probabilities) * np.float32(levels)).astype(np.uint8)


def _squares(codes: U8) -> I64:
    wide = codes.astype(np.int64)
    return wide * wide


def _sums_of_squares(codes: U8) -> npt.NDArray[np.uint32]:
    """Return the sum of each row, exact: 65536 squares of a byte stay below 2^32.

    Column by column: rows are short, and numpy adds long ones.
    """
    sums: npt.NDArray[np.uint32] = np.add.reduce(np.square(codes.T, dtype=np.uint32, order="C"), dtype=np.uint32)
    return sums


def _require_between(sums: npt.NDArray[np.uint32], low: int, high: int) -> None:
    if not (low <= np.minimum.reduce(sums) and np.maximum.reduce(sums) <= high):
        raise DecodeError("invalid_rows", f"a row's squares sum outside {low}..{high}")


@lru_cache
def _sum_bounds(classes: int, levels: int) -> tuple[int, int]:
    """Return the least and the greatest sum of squared codes that a row of sum 1 can have.

    With code = L sqrt(p) + e, |e| <= 1/2: sum(code^2) = L^2 sum(p) + 2 L sum(e sqrt(p)) + sum(e^2), and
    sum(sqrt(p)) <= sqrt(c) by Cauchy and Schwarz. So it lies in L^2 - L sqrt(c) .. L^2 + L sqrt(c) + c/4, and above 0.
    """
    wobble = levels * math.sqrt(classes)
    slack = ROW_TOLERANCE * (levels**2 + wobble)
    low = levels**2 - wobble - slack
    high = levels**2 + wobble + classes / 4 + slack
    return max(1, math.ceil(low)), math.floor(high)


def _normalise(values: I64) -> I64:
    return _divide(values * ONE, values.sum(axis=1, keepdims=True))


def _divide(values: I64, by: I64) -> I64:
    """Return the nearest integers of values / by, both non-negative; halves go up."""
    return (values + by // 2) // by


def _index_bytes(classes: int) -> int:
    return 1 if classes <= 256 else 2


def _write_classes(named: I64, classes: int) -> U8:
    return named.astype(np.uint8) if _index_bytes(classes) == 1 else _to_planes(named.astype(np.uint16))


def _read_classes(codes: U8, classes: int) -> I64:
    return (codes if _index_bytes(classes) == 1 else _from_planes(codes)).astype(np.int64)


def _check_classes(named: I64, classes: int) -> None:
    _require(bool((named < classes).all()), f"a class lies outside 0..{classes - 1}")


def _to_planes(values: npt.NDArray[np.uint16]) -> U8:
    """Return [n, 2 m]: the high bytes of a row, then its low bytes; alike bytes side by side deflate better."""
    return np.concatenate([values >> 8, values & 0xFF], axis=1).astype(np.uint8)


def _from_planes(codes: U8) -> npt.NDArray[np.uint16]:
    high, low = np.split(codes, 2, axis=1)
    return high.astype(np.uint16) << np.uint16(8) | low


def _require(condition: bool, claim: str) -> None:  # noqa: FBT001 - reads as `require(claim)`
    if not condition:
        raise DecodeError("invalid_rows", claim)
