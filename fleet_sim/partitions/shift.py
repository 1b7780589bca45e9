"""Devices that see the same things differently: another camera, another way to wear a sensor.

What a device's shift is follows from its number and the seed alone; `strength` in 0..1 scales it (drift, see `drift`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32

Values = npt.NDArray[np.generic]
_STREAM = 6
"""Keeps these draws apart from others of the same seed."""


class Distortion(Protocol):
    """What a device makes of what it records."""

    def __call__(self, samples: Values, *, device: int, seed: int, strength: float = 1.0) -> Values:
        """Return `samples` [n, *sample_shape] as this device records them, of the same type."""
        ...  # pragma: no cover - a protocol


class FeatureShift(Protocol):
    """How far devices differ in what they record, while its class stays."""

    def over(self, samples: Values, task: Task) -> Distortion:
        """Return the distortion of all devices; where it needs to know how values spread, `samples` say it.

        Raises:
            InvalidValueError: samples of this task cannot be distorted so.
        """
        ...  # pragma: no cover - a protocol


@dataclass(frozen=True, slots=True)
class ImageShift:
    """Cameras that differ. Each figure is the most that a device may be off, to either side.

    Attributes:
        contrast: distance from mid-grey is multiplied by a factor from 1 / (1 + contrast) to 1 + contrast.
        brightness: added, a share of the range from black to white.
        noise: standard deviation of each pixel, a share of that range; from 0 up.
        rotation_deg: counter-clockwise; what comes into view is black.
        blur_px: standard deviation of the spot that a point becomes, in pixels; from 0 up.
    """

    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    rotation_deg: float = 0.0
    blur_px: float = 0.0

    def __post_init__(self) -> None:
        if min(self.contrast, self.brightness, self.noise, self.rotation_deg, self.blur_px) < 0:
            raise InvalidValueError("a shift's figures are 0 or more")

    def over(self, samples: Values, task: Task) -> Distortion:
        """See `FeatureShift`. White is what preprocessing makes 1."""
        if task.sample_dtype != "uint8":
            raise InvalidValueError(f"an image shift needs uint8 images, not {task.sample_dtype}")
        if (self.rotation_deg or self.blur_px) and samples.ndim != 4:
            raise InvalidValueError("rotation and blur need images [channels, height, width]")
        return partial(self._seen, min(255.0, round(1 / task.preprocessing.scale)))

    def _seen(self, white: float, samples: Values, *, device: int, seed: int, strength: float = 1.0) -> Values:
        rng = np.random.default_rng([seed, _STREAM, device])
        contrast, brightness, rotation = (strength * rng.uniform(-1, 1, 3)).tolist()  # shares of the most
        noise = strength * rng.uniform()
        pixels = samples.astype(np.float32)
        if self.rotation_deg:
            pixels = rotated(pixels, self.rotation_deg * rotation)
        if self.blur_px:
            pixels = blurred(pixels, self.blur_px * strength * rng.uniform())
        pixels = (pixels - white / 2) * (1 + self.contrast) ** contrast + white * (0.5 + self.brightness * brightness)
        if self.noise:
            pixels += self.noise * noise * white * rng.standard_normal(pixels.shape, np.float32)
        seen: Values = np.clip(np.rint(pixels), 0, white).astype(np.uint8)
        return seen


@dataclass(frozen=True, slots=True)
class SensorShift:
    """Sensors that differ, channel by channel: the first axis of a sample, the columns of a table.

    Attributes:
        gain: a channel is multiplied by a factor from 1 / (1 + gain) to 1 + gain.
        offset: added, in standard deviations of the channel over all devices; to either side.
    """

    gain: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if min(self.gain, self.offset) < 0:
            raise InvalidValueError("a shift's figures are 0 or more")

    def over(self, samples: Values, task: Task) -> Distortion:
        """See `FeatureShift`."""
        if task.sample_dtype != "float32":
            raise InvalidValueError(f"a sensor shift needs float32 samples, not {task.sample_dtype}")
        return partial(self._felt, _deviation(samples.astype(np.float32)))

    def _felt(self, deviation: F32, samples: Values, *, device: int, seed: int, strength: float = 1.0) -> Values:
        """`deviation` of each channel [channels, 1, ...]. NaN stays NaN."""
        rng = np.random.default_rng([seed, _STREAM, device])
        gain, offset = strength * rng.uniform(-1, 1, (2, *deviation.shape))
        values = samples.astype(np.float64) * (1 + self.gain) ** gain + self.offset * offset * deviation
        felt: Values = values.astype(np.float32)
        return felt


def rotated(images: F32, degrees: float) -> F32:
    """Return images [n, channels, height, width] turned counter-clockwise about their middle, bilinear, 0 outside."""
    height, width = images.shape[2:]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    # Where each pixel comes from; rounded, so that a quarter turn stays on the grid.
    from_y = np.round(cosine * y + sine * x + (height - 1) / 2, 6)
    from_x = np.round(-sine * y + cosine * x + (width - 1) / 2, 6)
    top, left = np.floor(from_y).astype(np.int64), np.floor(from_x).astype(np.int64)
    turned = np.zeros_like(images)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight = (1 - abs(from_y - row)) * (1 - abs(from_x - column)) * is_inside
        turned += images[:, :, row.clip(0, height - 1), column.clip(0, width - 1)] * weight.astype(np.float32)
    return turned


def blurred(images: F32, deviation_px: float) -> F32:
    """Return images [n, channels, height, width] after a Gaussian spot, cut off at three deviations; edges go on."""
    reach = math.ceil(3 * deviation_px)
    if not reach:
        return images
    spot = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation_px) ** 2).astype(np.float32)
    spot /= spot.sum()
    for axis in (2, 3):
        padded = np.pad(images, [(reach, reach) if at == axis else (0, 0) for at in range(4)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(spot), axis)
        images = windows @ spot
    return images


def _deviation(samples: F32) -> F32:
    """Standard deviation of each channel [channels, 1, ...] where it is not missing; 0 where all is."""
    axes = (0, *range(2, samples.ndim))
    is_known = ~np.isnan(samples)
    count = np.maximum(is_known.sum(axes, keepdims=True), 1)
    mean = np.where(is_known, samples, 0).sum(axes, keepdims=True, dtype=np.float64) / count
    squares = np.where(is_known, samples - mean, 0) ** 2
    deviation: F32 = np.sqrt(squares.sum(axes, keepdims=True) / count)[0].astype(np.float32)
    return deviation
