"""Pooling windows, and nearest-neighbour upsampling, which is the pooling of tiles run backwards."""

from __future__ import annotations

import math
from itertools import product
from typing import Final

import numpy as np

from model_export.trainstep.autodiff import Adjoint, Gradients, rule
from model_export.trainstep.rules.masks import is_zero
from model_export.trainstep.rules.windows import Windows, windows_of

_NEAREST: Final = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
}
"""Defaults of the attributes that choose which element a Resize copies."""
_REPEATING: Final = {
    ("nearest", "asymmetric", "floor"),
    *product(["nearest"], ["half_pixel", "pytorch_half_pixel"], ["round_prefer_floor", "round_prefer_ceil"]),
}
"""The choices by which a whole factor k repeats every element k times."""


@rule("MaxPool")
def max_pool(at: Adjoint) -> Gradients:
    """dx = dy at the maximum of each window, added up where windows overlap."""
    windows = windows_of(at, at.attribute("kernel_shape", []), image=at.x, places=at.y)
    return [_max_of_tiles(at, windows) if windows.are_tiles else _max_of_overlaps(at)]


def _max_of_tiles(at: Adjoint, windows: Windows) -> str:
    """Compare the input with the maximum of its window: 3 times faster than MaxUnpool, as MaxPool's Indices are slow.

    Equal maxima share the gradient, which is a subgradient too.
    """
    below = at.op("Sub", at.x, _enlarged(at, at.y, windows))
    is_maximum = is_zero(at, below)
    kernel = list(windows.kernel)
    share = at.op("AveragePool", is_maximum, kernel_shape=kernel, strides=kernel)
    count = at.op("Mul", share, at.constant(windows.size()))
    return at.op("Mul", is_maximum, _enlarged(at, at.op("Div", at.dy, count), windows))


def _max_of_overlaps(at: Adjoint) -> str:
    """Add each gradient to the element that MaxPool's second output points at, in the flattened input."""
    if at.attribute("storage_order", 0):
        raise at.unsupported("use storage_order 0, by which the second output counts row by row")
    flat = at.integers(-1)
    zeros = at.op("ConstantOfShape", at.op("Reshape", at.op("Size", at.x), flat))
    places, updates = at.op("Reshape", at.output(1), flat), at.op("Reshape", at.dy, flat)
    return at.like(at.op("ScatterElements", zeros, places, updates, reduction="add"), at.x)


@rule("AveragePool")
def average_pool(at: Adjoint) -> Gradients:
    """dx = dy / count, spread over each window and added up where windows overlap."""
    windows = windows_of(at, at.attribute("kernel_shape", []), image=at.x, places=at.y)
    if at.attribute("count_include_pad", 0) and at.attribute("ceil_mode", 0):
        raise at.unsupported("use ceil_mode 0 where pads are counted")
    counts = np.float32(windows.size()) if at.attribute("count_include_pad", 0) else windows.coverage()
    share = at.op("Mul", at.dy, at.constant(1 / counts))
    if windows.are_tiles:
        return [_enlarged(at, share, windows)]
    (channels,) = at.extents(at.x, 1)[:1]
    ones = at.constant(np.ones((channels, 1, *windows.kernel)))
    return [at.op("ConvTranspose", share, ones, group=channels, **windows.transposed())]


@rule("Resize")
def resize(at: Adjoint) -> Gradients:
    """dx = sum(dy) over the copies of each element (nearest neighbour, by whole factors)."""
    factors = _copies(at)
    mean = at.op("AveragePool", at.dy, kernel_shape=factors, strides=factors)
    return [at.op("Mul", mean, at.constant(math.prod(factors)))]


def _copies(at: Adjoint) -> list[int]:
    """How often a Resize repeats each element along each spatial axis."""
    small, large = at.extents(at.x, 1), at.extents(at.y, 1)
    factors = [y // x for x, y in zip(small, large, strict=True)]
    style = tuple(at.attribute(name, default) for name, default in _NEAREST.items())
    is_whole = all(x * factor == y for x, y, factor in zip(small, large, factors, strict=True)) and factors[0] == 1
    if not (is_whole and style in _REPEATING and _scales(at) in ([], [1, *factors])):
        raise at.unsupported("upsample to the nearest neighbour by whole factors")
    return factors[1:]


def _scales(at: Adjoint) -> list[float]:
    """The scales of a Resize; empty if it names sizes instead."""
    return list(map(float, at.known(2))) if at.input(2) else []


def _enlarged(at: Adjoint, name: str, windows: Windows) -> str:
    """Repeat each element over its window."""
    scales = at.constant([1.0, 1.0, *windows.kernel])
    return at.op(
        "Resize", name, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
