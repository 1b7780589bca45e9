"""Small networks for the tests of quantisation, and how onnxruntime optimises them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from fd_runtime.models.onnx_model import _DISABLED_OPTIMIZERS
from model_export.graph import GraphBuilder, tensor


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    return y


def _options() -> onnxruntime.SessionOptions:
    """As devices have it: right sums also on x86 without VNNI."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def optimised_operators(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """What onnxruntime really runs when a device opens the graph, in order of first appearance."""
    options = _options()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=_DISABLED_OPTIMIZERS
    )
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


class Network:
    """Writes layers with seeded weights, from `input` to `output`."""

    def __init__(self, seed: int = 0) -> None:
        self.build = GraphBuilder({"input"})
        self.rng = np.random.default_rng(seed)

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        return self.build.op(op_type, *inputs, **attributes)

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        content = scale * self.rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))
        return self.build.parameter(self.build.fresh("weights"), content.astype(np.float32))

    def vector(self, *content: float) -> str:
        return self.build.parameter(self.build.fresh("vector"), np.array(content, np.float32))

    def convolution(self, x: str, shape: tuple[int, ...], **attributes: object) -> str:
        pads = [extent // 2 for extent in shape[2:]] * 2
        return self.op("Conv", x, self.weights(*shape), self.weights(shape[0], scale=0.1), pads=pads, **attributes)

    def normalised(self, x: str, channels: int) -> str:
        """BatchNormalization with statistics that change something."""
        parts = [self.rng.uniform(0.5, 2.0, channels), self.rng.normal(0, 1, channels)]
        parts += [self.rng.normal(0, 1, channels), self.rng.uniform(0.1, 3.0, channels)]
        return self.op("BatchNormalization", x, *(self.vector(*part) for part in parts), epsilon=1e-3)

    def model(self, y: str, shape: tuple[int, ...], sample: tuple[int, ...], dtype: int = 1) -> onnx.ModelProto:
        return self.build.model("network", [tensor("input", ("N", *sample), dtype)], [tensor(y, ("N", *shape))])
