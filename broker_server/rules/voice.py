"""What a rule hears: one device's soft labels as integers, and how much to listen to them.

Everything that is summed is an integer, so a consensus is the same for any order of voices, on any machine, and partial
sums of shards add up exactly. Division comes once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32

F64: TypeAlias = npt.NDArray[np.float64]

WEIGHT_ONE = 1 << 12
"""The integer that stands for weight 1. A weight above 0 is never rounded down to 0: a voice can fade, not vanish."""
MAX_VOICES = 1 << 18
"""2^20 (a label) x 2^12 (trust) x 2^12 (competence) x 2^18 voices stay below 2^63."""
DISTANCE_CODES = FAR + 1


class UnheardError(FedistillError):
    """No consensus can be made of these voices: none, one device twice, different shapes, or too many."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """One device's share of a round.

    Attributes:
        device: its name.
        integers: int64 [n, classes], see `Codes.integers`.
        distances: uint8 [n], codes of `fd_protocol.competence`.
        trust: int64 [classes], what a claim of each class weighs, 1..WEIGHT_ONE.
        weight: 1..WEIGHT_ONE; less than WEIGHT_ONE for the last payload of a device that is absent.
    """

    device: str
    integers: I64
    distances: U8
    trust: I64
    weight: int = WEIGHT_ONE

    def __post_init__(self) -> None:
        probes, classes = self.integers.shape
        if self.distances.shape != (probes,) or self.trust.shape != (classes,):
            raise InvalidValueError(f"distances are [{probes}] and trust is [{classes}] beside [{probes}, {classes}]")
        if self.distances.max() > FAR or not 1 <= self.trust.min() <= self.trust.max() <= WEIGHT_ONE:
            raise InvalidValueError(f"distance codes lie in 0..{FAR}, trust in 1..{WEIGHT_ONE}")
        if not 1 <= self.weight <= WEIGHT_ONE:
            raise InvalidValueError(f"a weight lies in 1..{WEIGHT_ONE}")


def to_weight(share: float) -> int:
    """Return the integer of a weight in [0, 1]."""
    return max(1, round(share * WEIGHT_ONE))


def to_weights(shares: npt.NDArray[np.floating]) -> I64:
    """Return the integers of weights in [0, 1]."""
    weights: I64 = np.maximum(1, np.rint(shares * WEIGHT_ONE)).astype(np.int64)
    return weights


def heard(voices: Iterable[Voice]) -> Iterator[Voice]:
    """Yield the voices, at least one, each device once, all of the same shape.

    Raises:
        UnheardError: they are not; part of them may have been yielded.
    """
    devices: set[str] = set()
    shape: tuple[int, ...] = ()
    for voice in voices:
        shape = shape or voice.integers.shape
        if voice.integers.shape != shape:
            raise UnheardError(f"{voice.device} speaks of {voice.integers.shape} cells, others of {shape}")
        if voice.device in devices:
            raise UnheardError(f"{voice.device} speaks twice")
        if len(devices) == MAX_VOICES:
            raise UnheardError(f"more than {MAX_VOICES} voices")
        devices.add(voice.device)
        yield voice
    if not devices:
        raise UnheardError("nobody speaks")


def probabilities_of(voice: Voice) -> F64:
    """Return what was said: float64 [n, classes], rows summing to 1."""
    probabilities: F64 = voice.integers / voice.integers.sum(axis=1, keepdims=True)
    return probabilities


def claims_of(voice: Voice) -> I64:
    """Return the class that the device holds likeliest, the first of equals: int64 [n]."""
    claims: I64 = voice.integers.argmax(axis=1).astype(np.int64)
    return claims


def entropies_of(probabilities: F64) -> F64:
    """Return the entropy of each row in nats, [n]."""
    entropies: F64 = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1)
    return entropies


def weighted_sum(voices: Iterable[Voice], weights_of: Callable[[Voice], int | I64] = attrgetter("weight")) -> I64:
    """Return the sum of weights x integers, int64 [n, classes]; a voice's weights are one number or [n, 1]."""
    parts = (weights_of(voice) * voice.integers for voice in heard(voices))
    total = next(parts)
    for part in parts:
        total += part
    return total


def normalise(sums: I64 | F64) -> F32:
    """Return rows that sum to 1: float32 [n, classes]."""
    rows: F32 = (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def softmax(scores: F64) -> F32:
    """Return softmax of each row: float32 [n, classes]."""
    return normalise(np.exp(scores - scores.max(axis=1, keepdims=True)))
