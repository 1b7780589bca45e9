"""Whether a bundle's train step really descends: its gradient against central differences, parameter by parameter.

The gradient is read out of the shipped step itself, by its effect on the optimizer's slots; the loss is computed from
the shipped tail in float64 by ONNX's reference evaluator. Neither knows the other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32, Batch, Features, Inputs, OptimizerState, PrivateTrainSession, TrainSession
from model_export.forward import FEATURES
from model_export.surgery import theta_of
from model_export.verification.graphs import LOGITS, as_numbers, float_tail
from model_export.verification.torch_oracle import NoTorchFormError, has_torch, torch_gradient

log = logging.getLogger("model-export")

F64 = npt.NDArray[np.float64]
_TEMPERATURE = 2.0
_STEP, _HAIR = 1e-6, 1e-3
_NO_CLIP = 1e9
_FIRST_MOMENT = 0.9
"""beta1 of Adam: after the first step its first moment is (1 - beta1) times the gradient."""


class Erf(OpRun):
    """The evaluator's own answers in float32, whatever it is asked in."""

    op_domain = ""

    def _run(self, x: F64) -> tuple[F64]:
        return (np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x), x.dtype),)


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """One parameter.

    Attributes:
        parameter: its name.
        relative_error: |g.v - central difference along v| / |g|, for v of about unit length; 0 is best.
        torch_error: |g - torch's| / |torch's|, the greatest element of each; None where torch was not asked.
    """

    parameter: str
    relative_error: float
    torch_error: float | None = None


def check_gradients(
    bundle: Bundle, samples: Inputs, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[GradientCheck, ...]:
    """Return a line for each trainable parameter.

    Args:
        bundle: proven on onnxruntime.
        samples: preprocessed, a few: [n, *sample_shape].
        labels: int64 [n]; half of each row's loss is cross-entropy, half distillation.
        rng: draws the directions.
    """
    model = bundle.open("onnxruntime")
    features = model.features(samples)
    batch = _batch(features, labels, len(bundle.manifest.task.classes), rng)
    layout, tail = bundle.manifest.layout, onnx.load_from_string(bundle.read(Role.TAIL))
    loss = _Loss(float_tail(tail), layout, replace(batch, features=as_numbers(features, bundle.manifest.features)))
    near = _beside_kinks(theta_of(tail, layout), rng)
    gradient = _gradient(model.train_session, near, batch).astype(np.float64)
    theta = near.astype(np.float64)
    second = _second_opinion(loss, theta)
    checks = []
    for slot in layout.slots:
        where = slice(slot.offset, slot.end)
        torch_error = None if second is None else _distance(gradient[where], second[slot.name].ravel())
        checks.append(GradientCheck(slot.name, _error(loss, theta, gradient, where, rng), torch_error))
    if Role.TRAIN_STEP_PRIVATE in bundle.manifest.files:
        checks.append(_check_private_step(bundle.open_private_step(), near, batch, gradient))
    return tuple(checks)


def _check_private_step(session: PrivateTrainSession, theta: F32, batch: Batch, gradient: F64) -> GradientCheck:
    """Without noise, and with a clip that no row reaches, the private step is the plain one."""
    rows, silence = float(batch.weight.sum()), np.zeros_like(theta)

    def step(given: Batch) -> OptimizerState:
        session.state = OptimizerState.fresh(theta, session.state.slots)
        session.run(
            given,
            learning_rate=1.0,
            clip_norm=_NO_CLIP,
            noise=silence,
            expected_rows=rows,
            temperature=_TEMPERATURE,
        )
        return session.state

    return GradientCheck("all, by the private step", _distance(_used_gradient(step, batch), gradient))


def _beside_kinks(theta: F32, rng: np.random.Generator) -> F32:
    """Theta a hair away: fresh weights may put a sum at exactly 0, where a ReLU has no gradient to agree upon."""
    return theta + rng.normal(0, _HAIR, theta.size).astype(np.float32)


def _second_opinion(loss: _Loss, theta: F64) -> dict[str, F64] | None:
    """Torch's gradient by parameter, None where torch is absent or does not know an op of the tail."""
    if not has_torch():
        return None
    try:
        return torch_gradient(loss.tail, loss.parameters(theta), loss.in_torch, loss.batch.features)
    except NoTorchFormError as error:
        log.info("torch is not asked: the oracle has no %s", error)
        return None


def _distance(found: F32 | F64, expected: F64) -> float:
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))


def _batch(features: Features, labels: npt.NDArray[np.int64], classes: int, rng: np.random.Generator) -> Batch:
    targets = rng.dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    half = np.full(len(labels), 0.5, np.float32)
    return Batch(features, labels, targets, half, np.ones_like(half))


def _gradient(session: TrainSession, theta: F32, batch: Batch) -> F32:
    """The gradient at `theta`, of one step at learning rate 1."""

    def step(given: Batch) -> OptimizerState:
        session.state = OptimizerState.fresh(theta, session.state.slots)
        session.run(given, learning_rate=1.0, temperature=_TEMPERATURE)
        return session.state

    return _used_gradient(step, batch)


def _used_gradient(step: Callable[[Batch], OptimizerState], batch: Batch) -> F32:
    """What a step has used: its slots remember it, or else it is how theta moved, less the decay of weights."""
    after = step(batch)
    if "moment1" in after.slots:
        return after.slots["moment1"] / np.float32(1 - _FIRST_MOMENT)
    if "velocity" in after.slots:
        return after.slots["velocity"]
    idle = step(replace(batch, weight=np.zeros_like(batch.weight)))
    return idle.theta - after.theta


def _error(loss: _Loss, theta: F64, gradient: F64, where: slice, rng: np.random.Generator) -> float:
    """Along half the gradient itself, which tells its length, and half chance, which tells what it left out."""
    part, chance = gradient[where], rng.standard_normal(where.stop - where.start)
    direction = np.zeros_like(theta)
    direction[where] = part / (np.linalg.norm(part) or 1.0) + chance / np.linalg.norm(chance)
    difference = (loss(theta + _STEP * direction) - loss(theta - _STEP * direction)) / (2 * _STEP)
    return float(abs(gradient @ direction - difference) / (np.linalg.norm(part) or 1.0))


class _Loss:
    """The loss of a batch as a function of theta, in float64."""

    def __init__(self, tail: onnx.ModelProto, layout: ThetaLayout, batch: Batch) -> None:
        self.tail, self.batch = tail, batch
        self._layout = layout
        self._graph = ReferenceEvaluator(_in_float64(tail), new_ops=[Erf])
        is_float = batch.features.dtype.kind == "f"
        self._features = batch.features.astype(np.float64) if is_float else batch.features

    def parameters(self, theta: F64) -> dict[str, F64]:
        return {slot.name: theta[slot.offset : slot.end].reshape(slot.shape) for slot in self._layout.slots}

    def __call__(self, theta: F64) -> float:
        outputs: Any = self._graph.run([LOGITS], {FEATURES: self._features, **self.parameters(theta)})
        logits = np.asarray(outputs[0], np.float64)
        batch, rows = self.batch, np.arange(len(logits))
        hard = -_log_softmax(logits)[rows, batch.labels]
        soft = -(batch.targets * _log_softmax(logits / _TEMPERATURE)).sum(axis=1) * _TEMPERATURE**2
        return float((batch.weight * (batch.alpha * hard + (1 - batch.alpha) * soft)).sum() / batch.weight.sum())

    def in_torch(self, logits: Any) -> Any:
        """The same of a torch tensor of logits."""
        labels, targets, alpha, weight = (
            logits.new_tensor(array)
            for array in (self.batch.labels, self.batch.targets, self.batch.alpha, self.batch.weight)
        )
        hard = -logits.log_softmax(1).gather(1, labels.long()[:, None])[:, 0]
        soft = -(targets * (logits / _TEMPERATURE).log_softmax(1)).sum(1) * _TEMPERATURE**2
        return (weight * (alpha * hard + (1 - alpha) * soft)).sum() / weight.sum()


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 constant as float64; the reference evaluator computes in what it is given."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for initializer in wide.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            content = numpy_helper.to_array(initializer).astype(np.float64)
            initializer.CopyFrom(numpy_helper.from_array(content, initializer.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
    return wide


def _log_softmax(logits: F64) -> F64:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)
