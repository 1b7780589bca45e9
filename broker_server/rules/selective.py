"""Selective-FD, Shao et al. 2024: on each probe only those are heard whose private data lie near it.

    z(x) = mean of p_k(x) over { k: d_k(x) <= f };  of all devices where there is none

d_k is the code of the competence map: 2-bit distances to the device's k-means centroids, as in EdgeFD (Mujtaba et al.
2025). The paper's devices estimate a density ratio by KuLSIF instead; docs/adr/0014-rules.md says why ours do not. The
paper's server also drops probes on which answers differ by more than a
threshold, and has that off by default; here every probe has a consensus.

A hard mask wastes what the second best know: measured on MNIST with one class a device, soft weights are 7 to 11 points
better (`competence`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import Weigher
from broker_server.rules.voice import Voice, heard, normalise
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32


@dataclass(frozen=True, slots=True)
class Selective:
    """`farthest` is f, the last distance code that is heard."""

    farthest: int

    card: ClassVar[Card] = Card(
        name="selective",
        formula="mean of p_k over those who stand near the probe",
        source="Shao et al. 2024 (Selective-FD), distances as in Mujtaba et al. 2025 (EdgeFD)",
        fails="where anyone lies about where its data are; far from all devices it is the mean",
        needs=frozenset({Need.PUBLIC_SET, Need.COMPETENCE}),
        promises=frozenset(Promise),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        near: I64 | None = None
        for voice in heard(voices):
            if near is None:
                near, all_ = np.zeros_like(voice.integers), np.zeros_like(voice.integers)
            part = voice.weight * voice.integers
            all_ += part
            near += np.where(self._is_near(voice), part, 0)
        assert near is not None
        return normalise(np.where(near.any(axis=1, keepdims=True), near, all_))

    def weigher(self, voices: Iterable[Voice]) -> Weigher:
        is_covered: npt.NDArray[np.bool_] = reduce(np.logical_or, (self._is_near(voice) for voice in voices))

        def weigh(voice: Voice) -> I64:
            return np.where(self._is_near(voice) | ~is_covered, voice.weight, 0)[:, 0].astype(np.int64)

        return weigh

    def _is_near(self, voice: Voice) -> npt.NDArray[np.bool_]:
        return voice.distances[:, None] <= self.farthest
