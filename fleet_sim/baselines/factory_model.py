"""A bundle's model as baselines train it: any optimizer, any number of starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle
from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import F32, OptimizerState
from fd_runtime.models.onnx_model import OnnxTail, OnnxTrainSession
from model_export.trainstep.compile import compile_train_step
from model_export.trainstep.draft import TrainStep
from model_export.trainstep.optimizers import OptimizerName


@dataclass(frozen=True, slots=True)
class FactoryModel:
    """A tail `features` -> `logits`, the whole network where every layer trains, and the theta of the factory."""

    tail: bytes
    layout: ThetaLayout
    theta: F32

    @classmethod
    def of(cls, bundle: Bundle) -> FactoryModel:
        theta = np.frombuffer(bundle.read(Role.THETA), "<f4").astype(np.float32)
        return cls(bundle.read(Role.TAIL), bundle.manifest.layout, theta)

    def session(self, optimizer: OptimizerName) -> OnnxTrainSession:
        """Return a train step of the tail at the factory's theta."""
        step = self.train_step(optimizer)
        return OnnxTrainSession(step.model.SerializeToString(), OptimizerState.fresh(self.theta, step.slots))

    def train_step(self, optimizer: OptimizerName) -> TrainStep:
        return compile_train_step(
            onnx.load_from_string(self.tail),
            input_name="features",
            logits_name="logits",
            trainable=[slot.name for slot in self.layout.slots],
            optimizer=optimizer,
        )

    def logits(self, theta: F32, rows: LabelledRows) -> F32:
        """Return logits [n, classes] of the tail with these parameters."""
        tail = OnnxTail(self.tail, self.layout)
        tail.load(theta)
        return tail.logits(rows.features)

    def accuracy(self, theta: F32, rows: LabelledRows) -> float:
        """Return the share of rows whose label has the largest logit; NaN of none."""
        return accuracy(self.logits(theta, rows), rows)


def accuracy(logits: F32, rows: LabelledRows) -> float:
    return float(np.mean(logits.argmax(axis=1) == rows.labels)) if len(rows.labels) else float("nan")
