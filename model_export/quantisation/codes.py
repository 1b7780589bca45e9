"""Real numbers <-> small integers, in plain NumPy: a device could do it again for weights that it trained.

    number = (code - zero_point) * scale        Jacob et al. 2018, eq. 1

Activations are uint8 with one scale for a tensor; weights int8 with a scale for each output channel and zero point 0;
biases int32 in the product of the two scales, so that they are added to the sums as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32

I8: TypeAlias = npt.NDArray[np.int8]
I32: TypeAlias = npt.NDArray[np.int32]
U8: TypeAlias = npt.NDArray[np.uint8]

_MOST = 255
_BIAS_LIMIT = 2.0**30
"""Biases keep to half of int32, the sums of products have the other half."""
_LEAST_SCALE = 1e-30
"""Below it, products of scales leave float32's normal numbers: such weights are zero."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the uint8 codes of a tensor stand for."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> Scaling:
        """The scaling that covers [low, high] and has a code for 0 exactly, as padding needs."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / _MOST))
        if scale < _LEAST_SCALE:
            return cls(1.0, 0)
        return cls(scale, round(-low / scale))

    @classmethod
    def of_values(cls, numbers: npt.NDArray[np.floating[Any]]) -> Scaling:
        """The scaling that covers all of `numbers`."""
        return cls.of_range(float(numbers.min()), float(numbers.max()))

    def codes(self, numbers: npt.NDArray[np.floating[Any]]) -> U8:
        """The nearest codes, ties to even, as QuantizeLinear rounds."""
        codes = np.rint(numbers / np.float32(self.scale)) + self.zero_point
        return np.asarray(codes.clip(0, _MOST).astype(np.uint8))

    def numbers(self, codes: U8) -> F32:
        """What the codes stand for."""
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class ChannelCodes:
    """A layer's weights as `codes`, in the weights' own shape, with a scale for each output channel."""

    codes: I8
    scales: F32


def quantise_weights(
    weights: F32, axis: int, *, limit: int = 127, bias: F32 | None = None, input_scale: float = 1.0
) -> ChannelCodes:
    """Return weights as symmetric int8.

    Args:
        weights: of any rank.
        axis: of the output channels.
        limit: the greatest absolute code.
        bias: the layer's, one number a channel: where it is large beside the weights their scale grows, lest its
            int32 code overflow.
        input_scale: of the activations that the weights are multiplied with.
    """
    by_channel = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    scales = np.abs(by_channel).max(axis=1) / limit
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (_BIAS_LIMIT * input_scale))
    scales = np.where(scales < _LEAST_SCALE, 1.0, scales).astype(np.float32)
    along = scales.reshape([-1 if each == axis else 1 for each in range(weights.ndim)])
    codes = np.rint(weights / along).clip(-limit, limit)
    return ChannelCodes(codes.astype(np.int8), scales)


def quantise_bias(bias: F32, input_scale: float, scales: F32) -> I32:
    """Return one bias a channel in the product of its input's scale and its weights' scales."""
    return np.rint(bias / (input_scale * scales.astype(np.float64))).astype(np.int32)
