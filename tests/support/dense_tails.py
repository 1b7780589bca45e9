"""A dense tail with its train step, as a bundle would hold them, and batches for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fd_runtime.models.model import F32, Batch, Features, OptimizerState
from model_export.families import build_family
from model_export.graph import GraphBuilder, tensor
from model_export.trainstep import TrainStep, compile_train_step

SCALE, ZERO_POINT = 0.03, 60


@dataclass(frozen=True)
class DenseTail:
    """`model` is the inference graph, `step` its train step."""

    model: onnx.ModelProto
    step: TrainStep
    feature_shape: tuple[int, ...]
    classes: int
    reads_integers: bool

    @property
    def theta(self) -> F32:
        contents = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        return np.concatenate([contents[slot.name].ravel() for slot in self.step.layout.slots])

    @property
    def fresh(self) -> OptimizerState:
        return OptimizerState.fresh(self.theta, self.step.slots)

    def numbers(self, features: Features) -> F32:
        """What features mean, as the tail's first node has it."""
        integers = features.astype(np.float32)
        return (integers - np.float32(ZERO_POINT)) * np.float32(SCALE) if self.reads_integers else integers

    def batch(self, rows: int, seed: int) -> Batch:
        """Rows with labels and soft labels, of every alpha and weight between 0 and 1."""
        rng = np.random.default_rng(seed)
        integers = rng.integers(0, 256, (rows, *self.feature_shape), dtype=np.uint8)
        return Batch(
            features=integers if self.reads_integers else integers.astype(np.float32) / 255,
            labels=rng.integers(0, self.classes, rows),
            targets=rng.dirichlet(np.ones(self.classes), rows).astype(np.float32),
            alpha=rng.random(rows, np.float32),
            weight=rng.random(rows, np.float32),
        )


def dense_tail(*widths: int, optimizer: str = "adam", weight_decay: float = 0.0) -> DenseTail:
    """A tail of dense layers with Relu between them that reads uint8 features."""
    build, rng = GraphBuilder({"features"}), np.random.default_rng(1)
    x = build.op("DequantizeLinear", "features", build.constant(SCALE), build.constant(ZERO_POINT, np.uint8))
    names = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        x = build.op("Relu", x) if index else x
        weight = (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        names += [build.parameter(f"weight{index}", weight), build.parameter(f"bias{index}", bias)]
        x = build.op("Gemm", x, *names[-2:], output="logits" if index == len(widths) - 2 else "")
    features, logits = tensor("features", ("N", widths[0]), TensorProto.UINT8), tensor("logits", ("N", widths[-1]))
    model = build.model("tail", [features], [logits])
    return DenseTail(
        model, _train_step(model, names, optimizer, weight_decay), widths[:1], widths[-1], reads_integers=True
    )


def whole_network(family: str, sample_shape: tuple[int, ...], classes: int) -> DenseTail:
    """A family whose every layer trains: the tail reads float32 samples."""
    forward = build_family(family, sample_shape, classes, seed=1)
    model = forward.tail()
    step = _train_step(model, forward.parameters, "adam")
    return DenseTail(model, step, sample_shape, classes, reads_integers=False)


def _train_step(
    model: onnx.ModelProto, trainable: Collection[str], optimizer: str, weight_decay: float = 0.0
) -> TrainStep:
    return compile_train_step(
        model,
        input_name="features",
        logits_name="logits",
        trainable=trainable,
        optimizer=optimizer,
        weight_decay=weight_decay,
    )
