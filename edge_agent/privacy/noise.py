"""The chance in a private training, all of it from one secret key: who joins a lot, and the noise on its sum.

    SHAKE-256("fedistill noise" || key || digest of the training || step || purpose) -> bytes -> draws

SHAKE-256 (FIPS 202) is an extendable-output function: whoever does not have the key cannot tell its output from chance.
The same key, training and step give the same draws, so what was cut short goes on bit for bit. The digest is of all
that the training follows from, its rows and first weights too: noise that met two sets of rows could be taken off both,
so other rows get other noise.

Normal draws are Box-Muller's, in float64, the sum of four halved: what inverts one draw from the gaps between doubles
(Mironov 2012; Jin et al. 2022) has to invert four unknown ones at once (Holohan & Braghin 2021). That is hardening, no
proof: the guarantee is that of real numbers, up to the rounding of float32 sums (docs/agent/privacy.md).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32

_LABEL = b"fedistill noise\n"
_SUMMED = 4
_SHIFT = 11
_UNIT = 2.0**-53


class NoiseStream:
    """The draws of one training.

    Args:
        key: 32 secret bytes from the system's generator.
        training_sha256: digest of the rows and of all else that it follows from.
    """

    def __init__(self, key: bytes, training_sha256: bytes) -> None:
        self._seed = _LABEL + key + training_sha256

    def lot(self, step: int, rows: int, sampling_rate: float) -> npt.NDArray[np.bool_]:
        """Return which of `rows` join a step, each by itself with `sampling_rate`: bool [rows]."""
        return self._uniform(step, b"lot", rows) <= sampling_rate

    def normal(self, step: int, size: int, deviation: float) -> F32:
        """Return normal draws of a step: float32 [size]."""
        pairs = -(-size // 2)
        radius, angle = self._uniform(step, b"noise", 2 * _SUMMED * pairs).reshape(2, _SUMMED, pairs)
        length = np.sqrt(-2 * np.log(radius))
        both = np.concatenate([length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)], axis=1)
        summed = both.sum(axis=0)[:size] / np.sqrt(_SUMMED)
        noise: F32 = (deviation * summed).astype(np.float32)
        return noise

    def _uniform(self, step: int, purpose: bytes, count: int) -> npt.NDArray[np.float64]:
        """Return `count` multiples of 2^-53 in (0, 1]."""
        stream = hashlib.shake_256(self._seed + step.to_bytes(8, "big") + purpose).digest(8 * count)
        words = np.frombuffer(stream, "<u8") >> np.uint64(_SHIFT)
        return (words.astype(np.float64) + 1.0) * _UNIT
