"""A sample as a person can see it, as plain data for a page that draws it.

    {"kind": "image", "png": base64}               images; small ones are enlarged by the page, not here
    {"kind": "lines", "lines": [[0..1, ...]], "low": a, "high": b}      windows of a sensor, a line a channel; tables
    {"kind": "tokens", "tokens": [...]}            token numbers, or the words that they are

PNG is written here: twenty lines of zlib and struct, where Pillow would be a package of megabytes on every device.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fd_protocol.manifest import Task
from fd_runtime.words import Vocabulary

_MOST_POINTS = 240
_MOST_LINES = 8
_MOST_SIDE = 256
_FEWEST_ROWS = 13
"""A two-dimensional sample with fewer rows or columns is a window of channels, not an image."""


def picture_of(sample: npt.NDArray[Any], task: Task) -> dict[str, Any]:
    """Return a sample [*sample_shape] as something to draw."""
    if task.vocabulary is not None:
        tokens = sample.ravel()[:_MOST_POINTS].tolist()
        return {"kind": "tokens", "tokens": Vocabulary.of(task).said(tokens) if task.tokens else tokens}
    pixels = _as_pixels(sample)
    if pixels is not None:
        return {"kind": "image", "png": base64.b64encode(png(_eight_bits(pixels))).decode()}
    return _lines(sample)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG (ISO/IEC 15948) of pixels [height, width] or [height, width, 3]."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    scanlines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0 before each
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _as_pixels(sample: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return [height, width] or [height, width, 3], at most 256 a side; None: it is no image."""
    shape = sample.shape
    if sample.ndim == 2 and min(shape) >= _FEWEST_ROWS:
        pixels = sample
    elif sample.ndim == 3 and shape[0] in (1, 3):
        pixels = np.moveaxis(sample, 0, -1)
    elif sample.ndim == 3 and shape[2] in (1, 3):
        pixels = sample
    elif sample.ndim == 3:
        pixels = sample.mean(axis=0)
    else:
        return None
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    step = max(1, math.ceil(max(pixels.shape[:2]) / _MOST_SIDE))
    return pixels[::step, ::step]


def _eight_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Bytes as they are; other numbers from their least to their greatest."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = _range(pixels)
    return np.asarray(np.nan_to_num((pixels - low) * (255.0 / (high - low))), np.uint8)


def _lines(sample: npt.NDArray[Any]) -> dict[str, Any]:
    table = sample.reshape(1, -1) if sample.ndim == 1 else sample.reshape(sample.shape[0], -1)
    table = table.T if table.shape[0] > table.shape[1] else table  # time runs along the longer side
    low, high = _range(table)
    step = max(1, math.ceil(table.shape[1] / _MOST_POINTS))
    scaled = (table[:_MOST_LINES, ::step].astype(np.float64) - low) / (high - low)
    lines = [[None if math.isnan(point) else round(point, 4) for point in line] for line in scaled.tolist()]
    return {"kind": "lines", "lines": lines, "low": low, "high": high}


def _range(numbers: npt.NDArray[Any]) -> tuple[float, float]:
    """Least and greatest number that is not missing, never equal."""
    known = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)
