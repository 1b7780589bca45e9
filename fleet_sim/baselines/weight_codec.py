"""How FedAvg's weights travel: as they are, or as coarse differences to what both sides know."""

from __future__ import annotations

import zlib
from typing import Literal, TypeAlias

import numpy as np

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import F32

WeightCodec: TypeAlias = Literal["f32", "int8", "int4"]
_LEVELS = {"int8": 127, "int4": 7}


def transmit(theta: F32, known: F32, layout: ThetaLayout, codec: WeightCodec) -> tuple[F32, int]:
    """Return what the other side makes of `theta`, and how many bytes travelled.

    Quantised codecs send theta - `known`, each parameter on its own symmetric scale, deflated at level 9.
    """
    if codec == "f32":
        return theta, theta.nbytes
    difference, body = theta - known, b""
    received = known.copy()
    for slot in layout.slots:
        codes, scale = _quantise(difference[slot.offset : slot.end], _LEVELS[codec])
        received[slot.offset : slot.end] += codes * scale
        body += scale.tobytes() + _pack(codes, codec)
    return received, len(zlib.compress(body, 9))


def _quantise(values: F32, levels: int) -> tuple[np.typing.NDArray[np.int8], np.float32]:
    largest = np.abs(values).max()
    scale = np.float32(largest / levels if largest > 0 else 1.0)
    return np.rint(values / scale).astype(np.int8), scale


def _pack(codes: np.typing.NDArray[np.int8], codec: WeightCodec) -> bytes:
    """Two 4-bit codes a byte, the first in the low half."""
    if codec == "int8":
        return codes.tobytes()
    nibbles = np.append(codes, np.zeros(len(codes) % 2, np.int8)).astype(np.uint8) & 15
    return (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8).tobytes()
