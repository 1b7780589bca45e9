"""A process that takes steps on one runtime alone and prints its peak memory.

python peak.py onnx GRAPH.onnx BATCH.npz        python peak.py torch NET BATCH.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
TERMS = {"learning_rate": 1e-3, "temperature": 2.0}
STEPS = 6


def main() -> None:
    runtime, what, batch_file = sys.argv[1:]
    batch = dict(np.load(batch_file))
    (_train_on_torch if runtime == "torch" else _train_on_onnx)(what, batch)
    status = Path("/proc/self/status").read_text()
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak_kb) / 1024)


def _train_on_onnx(graph: str, batch: dict[str, np.ndarray]) -> None:
    from fd_runtime.models.model import Batch, OptimizerState  # noqa: PLC0415  # one process must not load both runtimes
    from fd_runtime.models.onnx_model import OnnxTrainSession  # noqa: PLC0415

    theta = batch.pop("theta")
    session = OnnxTrainSession(Path(graph).read_bytes(), OptimizerState.fresh(theta, ("velocity",)))
    for _ in range(STEPS):
        session.run(Batch(**batch), **TERMS)


def _train_on_torch(net: str, batch: dict[str, np.ndarray]) -> None:
    from training.nets import NETS  # noqa: PLC0415
    from training.torch_nets import TorchSession  # noqa: PLC0415

    batch.pop("theta")
    session = TorchSession(NETS[net])
    for _ in range(STEPS):
        session.run(batch, **TERMS)


if __name__ == "__main__":
    main()
