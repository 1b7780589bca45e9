"""Owners who label their data wrongly: in good faith, unlike `fleet_sim.attacks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Some labels are wrong.

    Attributes:
        share: of a device's rows; exactly so many, rounded.
        toward: `any` other class, or always the `next` one: as people mix up two classes that look alike.
    """

    share: float = 0.0
    toward: Literal["any", "next"] = "any"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidValueError("share lies in 0..1")

    def apply(self, labels: I64, classes: int, rng: np.random.Generator) -> I64:
        """Return `labels` of a task of so many classes, some of them wrong."""
        noisy = labels.copy()
        wrong = rng.permutation(len(labels))[: round(self.share * len(labels))]
        step = rng.integers(1, classes, len(wrong)) if self.toward == "any" else 1
        noisy[wrong] = (labels[wrong] + step) % classes
        return noisy
