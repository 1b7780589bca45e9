"""What a model is to the programs: a frozen backbone, a tail that can be replaced, and a train step for that tail.

Each runtime (onnxruntime, LiteRT, NumPy) has an adapter with these three faces; nothing else in fedistill knows which
runtime it stands on. `theta` is every trainable parameter in one float32 vector, in the order of `ThetaLayout`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.layout import ThetaLayout

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Inputs: TypeAlias = F32 | I32
"""What a model reads: preprocessed samples [n, *sample_shape], float32 quantities or int32 token numbers."""
Features: TypeAlias = npt.NDArray[np.uint8] | Inputs
"""What a tail reads: uint8 from an int8 backbone, float32 from another, the sample itself where every layer trains."""


class ModelError(FedistillError):
    """A runtime refuses a graph, or what it is fed with."""


class RuntimeMissingError(ModelError):
    """The runtime that was asked for is not installed."""


class ThetaError(FedistillError):
    """A theta or an optimizer slot does not fit the graph: wrong length or type, or not finite."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one train step; private and probe rows may share a batch.

    Attributes:
        features: [n, ...], as the tail reads them.
        labels: int64 [n], read where alpha > 0.
        targets: float32 [n, classes], probabilities at the step's temperature, read where alpha < 1.
        alpha: float32 [n], 1 = cross-entropy with the label, 0 = distillation of the target.
        weight: float32 [n], a row's share of the loss; 0 makes the row padding.
    """

    features: Features
    labels: I64
    targets: F32
    alpha: F32
    weight: F32

    def __post_init__(self) -> None:
        rows = len(self.features)
        if {len(self.labels), len(self.targets), len(self.alpha), len(self.weight)} != {rows} or not rows:
            raise InvalidValueError("a batch's five arrays must have the same number of rows, at least one")


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Everything a train step changes. `slots` are the optimizer's vectors by name, each as long as theta."""

    theta: F32
    slots: Mapping[str, F32] = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        for name, vector in {"theta": self.theta, **self.slots}.items():
            if vector.dtype != np.float32 or vector.shape != self.theta.shape or vector.ndim != 1:
                raise ThetaError(f"{name} must be float32 [{self.theta.size}], is {vector.dtype} {vector.shape}")

    @classmethod
    def fresh(cls, theta: F32, slots: Collection[str]) -> OptimizerState:
        """The state before the first step: every slot zero."""
        return cls(theta, {name: np.zeros_like(theta) for name in slots})


def check_theta(theta: F32, size: int) -> F32:
    """Return `theta` if a graph of `size` parameters can live with it.

    Raises:
        ThetaError: wrong length or type, or not finite.
    """
    if theta.dtype != np.float32 or theta.shape != (size,):
        raise ThetaError(f"theta must be float32 [{size}], is {theta.dtype} {list(theta.shape)}")
    if not np.isfinite(theta).all():
        raise ThetaError("theta has values that are not finite")
    return theta


def check_state(state: OptimizerState, size: int, slots: Collection[str]) -> OptimizerState:
    """Return `state` if a train step of `size` parameters with these slots can go on from it.

    Raises:
        ThetaError: theta does not fit, or the slots are those of another optimizer.
    """
    check_theta(state.theta, size)
    if state.slots.keys() != set(slots):
        raise ThetaError(f"the graph keeps {sorted(slots)}, the state {sorted(state.slots)}")
    return state


def split_theta(theta: F32, layout: ThetaLayout) -> dict[str, F32]:
    """Return each parameter as a view into theta, in the layout's order."""
    return {slot.name: theta[slot.offset : slot.end].reshape(slot.shape) for slot in layout.slots}


class Backbone(Protocol):
    """The frozen part."""

    def extract(self, samples: Inputs) -> Features:
        """Return the features of preprocessed samples; they may be cached for good."""
        ...


class Tail(Protocol):
    """The part that a device owns."""

    def logits(self, features: Features) -> F32:
        """Return logits [n, classes]."""
        ...

    def load(self, theta: F32) -> None:
        """Replace the parameters.

        Raises:
            ThetaError: wrong length or type, or not finite; the old parameters stay.
        """
        ...


class TrainSession(Protocol):
    """A train step and its state, which the caller may read, keep, and set back."""

    state: OptimizerState

    def run(
        self,
        batch: Batch,
        *,
        learning_rate: float,
        temperature: float,
        reference: F32 | None = None,
        prox: float = 0.0,
        max_norm: float = 0.0,
    ) -> float:
        """Take one step and return the batch's loss before it.

        Args:
            batch: any number of rows.
            learning_rate: of this step.
            temperature: T of the distillation term.
            reference: theta that the proximal term pulls to; None = no pull.
            prox: strength of that pull (mu of FedProx, Li et al. 2020, eq. 2).
            max_norm: clip of the gradient's global norm; 0 = off.
        """
        ...


class PrivateTrainSession(Protocol):
    """A train step by DP-SGD (Abadi et al. 2016, algorithm 1) and its state.

    Whoever sees nothing but the states learns of each row as little as the noise allows. The losses are not private.
    """

    state: OptimizerState

    def run(
        self,
        batch: Batch,
        *,
        learning_rate: float,
        clip_norm: float,
        noise: F32,
        expected_rows: float,
        temperature: float = 1.0,
        reference: F32 | None = None,
        prox: float = 0.0,
    ) -> float:
        """Take one step and return the loss: the rows' sum, by weight, over `expected_rows`. It must stay here.

        Args:
            batch: a Poisson sample of the private rows. `weight` multiplies a row's loss before its gradient is
                clipped; 0 makes padding, and an empty sample is one row of padding.
            learning_rate: of this step.
            clip_norm: C, to which each row's gradient is clipped: adding or removing a row moves the sum by at most C.
            noise: float32, as long as theta: normal with deviation sigma C, from a cryptographic generator.
            expected_rows: sampling probability times all private rows; the sum is divided by it.
            temperature: of the distillation term, for rows with soft targets.
            reference: theta that the proximal term pulls to: a public one, or one trained like this; None = no pull.
            prox: strength of that pull.

        Raises:
            InvalidValueError: `clip_norm` or `expected_rows` is not positive.
        """
        ...
