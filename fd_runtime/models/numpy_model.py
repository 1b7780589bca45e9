"""Dense tails in plain NumPy: the oracle that the graphs are tested against, and a fallback without any runtime.

Loss and updates are those of the train-step graphs (`Batch`, `TrainSession.run`), written out a second time on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import (
    F32,
    Batch,
    Features,
    ModelError,
    OptimizerState,
    check_state,
    check_theta,
    split_theta,
)

_MOMENTUM, _BETA1, _BETA2, _EPSILON = 0.9, 0.9, 0.999, 1e-8

Update: TypeAlias = Callable[[F32, Mapping[str, F32], int], tuple[F32, dict[str, F32]]]
"""(gradient, slots, step) -> (direction that theta moves against, new slots)."""


@dataclass(frozen=True, slots=True)
class DenseChain:
    """features -> W, b -> Relu -> W, b -> ... -> logits, with W [inputs, outputs].

    Attributes:
        layout: W, b, W, b, ... in this order.
        scale, zero_point: turn uint8 features into numbers, (features - zero_point) * scale; read for uint8 only.
    """

    layout: ThetaLayout
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        shapes = [slot.shape for slot in self.layout.slots]
        weights, biases = shapes[::2], shapes[1::2]
        is_chain = (
            len(weights) == len(biases)
            and all(len(weight) == 2 and bias == weight[1:] for weight, bias in zip(weights, biases, strict=False))
            and all(before[1:] == after[:1] for before, after in pairwise(weights))
        )
        if not is_chain:
            raise InvalidValueError(f"not a chain of dense layers: {shapes}")

    def activations(self, theta: F32, features: Features) -> list[F32]:
        """Return what each layer reads, and the logits [n, classes] last.

        Raises:
            ModelError: a row has not as many features as the first layer reads.
        """
        inputs = self.layout.slots[0].shape[0]
        if features.size != len(features) * inputs:
            raise ModelError(f"the first layer reads {inputs} features, found {list(features.shape[1:])}")
        x = features.reshape(len(features), inputs).astype(np.float32)
        if features.dtype == np.uint8:
            x = (x - np.float32(self.zero_point)) * np.float32(self.scale)
        read = [x]
        for weight, bias in self._layers(theta):
            read[-1] = np.maximum(read[-1], 0) if len(read) > 1 else read[-1]
            read.append(read[-1] @ weight + bias)
        return read

    def gradient(self, theta: F32, activations: Sequence[F32], d_logits: F32) -> F32:
        """Return the gradient by theta, flat, from that by the logits."""
        parts, dy = [], d_logits
        for (weight, _), x in zip(self._layers(theta)[::-1], activations[-2::-1], strict=True):
            parts += [dy.sum(axis=0), (x.T @ dy).ravel()]
            dy = (dy @ weight.T) * (x > 0)
        return np.concatenate(parts[::-1])

    def _layers(self, theta: F32) -> list[tuple[F32, F32]]:
        parameters = list(split_theta(theta, self.layout).values())
        return list(zip(parameters[::2], parameters[1::2], strict=True))


class NumpyTail:
    """A dense tail."""

    def __init__(self, chain: DenseChain, theta: F32) -> None:
        self._chain = chain
        self.load(theta)

    def load(self, theta: F32) -> None:
        """Replace the parameters; see `Tail.load`."""
        self._theta = check_theta(theta, self._chain.layout.size).copy()

    def logits(self, features: Features) -> F32:
        """Return logits [n, classes]."""
        return self._chain.activations(self._theta, features)[-1]


class NumpyTrainSession:
    """The train step of a dense tail; the optimizer is the one that keeps the state's slots."""

    def __init__(self, chain: DenseChain, state: OptimizerState) -> None:
        """Go on from `state`.

        Raises:
            InvalidValueError: no optimizer keeps such slots.
            ThetaError: theta does not fit the chain.
        """
        self._chain, self._slots = chain, tuple(sorted(state.slots))
        if self._slots not in _UPDATES:
            raise InvalidValueError(f"no optimizer keeps the slots {list(self._slots)}")
        self.state = state

    @property
    def state(self) -> OptimizerState:
        """Parameters and optimizer memory after the last step; set it to resume or to roll back."""
        return self._state

    @state.setter
    def state(self, state: OptimizerState) -> None:
        self._state = check_state(state, self._chain.layout.size, self._slots)

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
        """Take one step; see `TrainSession.run`."""
        state, theta = self._state, self._state.theta
        activations = self._chain.activations(theta, batch.features)
        loss, d_logits = _loss(batch, activations[-1], temperature)
        distance = theta - (theta if reference is None else reference)
        gradient = self._chain.gradient(theta, activations, d_logits) + np.float32(prox) * distance
        gradient = _clipped(gradient, max_norm)
        direction, slots = _UPDATES[self._slots](gradient, state.slots, state.step + 1)
        self._state = OptimizerState(theta - np.float32(learning_rate) * direction, slots, state.step + 1)
        return loss + prox / 2 * float(distance @ distance)


def _loss(batch: Batch, logits: F32, temperature: float) -> tuple[float, F32]:
    """Return the loss of a batch and its gradient by the logits, as `model_export.trainstep.loss` defines them."""
    share = batch.weight / max(batch.weight.sum(), np.float32(1e-12))
    labels = np.eye(logits.shape[1], dtype=np.float32)[batch.labels]
    hard, soft = _log_softmax(logits), _log_softmax(logits / np.float32(temperature))
    on_label, on_target = share * batch.alpha, share * (1 - batch.alpha) * np.float32(temperature)
    d_logits = on_label[:, None] * (np.exp(hard) - labels) + on_target[:, None] * (np.exp(soft) - batch.targets)
    losses = on_label * (labels * hard).sum(axis=1) + temperature * on_target * (batch.targets * soft).sum(axis=1)
    return -float(losses.sum()), d_logits


def _log_softmax(logits: F32) -> F32:
    shifted: F32 = logits - logits.max(axis=1, keepdims=True)
    log_p: F32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p


def _clipped(gradient: F32, max_norm: float) -> F32:
    norm = float(np.linalg.norm(gradient))
    return gradient * np.float32(max_norm / norm) if 0 < max_norm < norm else gradient


def _sgd(gradient: F32, slots: Mapping[str, F32], step: int) -> tuple[F32, dict[str, F32]]:
    del slots, step
    return gradient, {}


def _momentum(gradient: F32, slots: Mapping[str, F32], step: int) -> tuple[F32, dict[str, F32]]:
    del step
    velocity = np.float32(_MOMENTUM) * slots["velocity"] + gradient
    return velocity, {"velocity": velocity}


def _adam(gradient: F32, slots: Mapping[str, F32], step: int) -> tuple[F32, dict[str, F32]]:
    """Kingma & Ba 2015, algorithm 1."""
    moment1 = np.float32(_BETA1) * slots["moment1"] + np.float32(1 - _BETA1) * gradient
    moment2 = np.float32(_BETA2) * slots["moment2"] + np.float32(1 - _BETA2) * gradient * gradient
    root = np.sqrt(moment2 / np.float32(1 - _BETA2**step)) + np.float32(_EPSILON)
    direction = (moment1 / np.float32(1 - _BETA1**step) / root).astype(np.float32, copy=False)
    return direction, {"moment1": moment1, "moment2": moment2}


_UPDATES: Mapping[tuple[str, ...], Update] = {(): _sgd, ("velocity",): _momentum, ("moment1", "moment2"): _adam}
