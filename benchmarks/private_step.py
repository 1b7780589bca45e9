"""What clipping every row costs: a private train step beside the plain one, and beside torch's vmap(grad).

    python benchmarks/private_step.py [--rows 32] [--json FILE]

CPU time of one thread. The steps take turns on the same batch, so that a busy machine disturbs their ratios little.
With torch installed its clipped sum of per-sample gradients is compared, too: `difference` is the greatest one over the
sum's greatest element. Torch's time is that of the sum alone, without noise and optimizer.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import F32, Batch, OptimizerState, split_theta
from fd_runtime.models.onnx_model import OnnxPrivateTrainSession, OnnxTrainSession
from model_export.forward import ForwardModel
from model_export.graph import GraphBuilder, tensor
from model_export.surgery import theta_of
from model_export.trainstep import compile_private_step, compile_train_step

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

TAILS = {"head 64-10": (64, 10), "head 1280-10": (1280, 10), "MLP 1280-128-10": (1280, 128, 10)}
CLIP_NORM, TURNS = 1.0, 41


@dataclass(frozen=True)
class Row:
    tail: str
    plain_ms: float
    private_ms: float
    torch_ms: float | None = None
    difference: float | None = None


def measure(name: str, widths: tuple[int, ...], rows: int) -> Row:
    forward = dense(widths)
    terms = {
        "input_name": "features",
        "logits_name": "logits",
        "trainable": forward.parameters,
        "optimizer": "momentum",
    }
    plain, private = compile_train_step(forward.model, **terms), compile_private_step(forward.model, **terms)
    theta, batch = theta_of(forward.model, plain.layout), some_rows(widths, rows)
    fresh, silence = OptimizerState.fresh(theta, plain.slots), np.zeros_like(theta)
    on_plain = OnnxTrainSession(plain.model.SerializeToString(), fresh)
    on_private = OnnxPrivateTrainSession(private.model.SerializeToString(), fresh)

    def step_privately() -> None:
        on_private.run(batch, learning_rate=1e-4, clip_norm=CLIP_NORM, noise=silence, expected_rows=float(rows))

    step_privately()
    clipped = on_private.state.slots["velocity"] * np.float32(rows)
    calls: list[Callable[[], object]] = [lambda: on_plain.run(batch, learning_rate=1e-4, temperature=1.0)]
    calls.append(step_privately)
    if torch is None:
        return Row(name, *cpu_ms(calls))
    by_torch = vmapped(theta, plain.layout, batch)
    difference = float(np.abs(by_torch() - clipped).max() / np.abs(clipped).max())
    return Row(name, *cpu_ms([*calls, by_torch]), difference)


def dense(widths: tuple[int, ...]) -> ForwardModel:
    """Dense layers with Relu between them."""
    build, rng, x = GraphBuilder({"features"}), np.random.default_rng(1), "features"
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        x = build.op("Relu", x) if index else x
        weight = rng.standard_normal((inputs, outputs)).astype(np.float32) / np.sqrt(np.float32(inputs))
        names = build.parameter(f"w{index}", weight), build.parameter(f"b{index}", np.zeros(outputs, np.float32))
        x = build.op("Gemm", x, *names, output="logits" if index == len(widths) - 2 else "")
    features, logits = tensor("features", ("N", widths[0])), tensor("logits", ("N", widths[-1]))
    return ForwardModel(build.model("tail", [features], [logits]), features="")


def some_rows(widths: tuple[int, ...], rows: int) -> Batch:
    rng, ones = np.random.default_rng(0), np.ones(rows, np.float32)
    targets = np.zeros((rows, widths[-1]), np.float32)
    return Batch(rng.random((rows, widths[0]), np.float32), rng.integers(0, widths[-1], rows), targets, ones, ones)


def vmapped(theta: F32, layout: ThetaLayout, batch: Batch) -> Callable[[], F32]:
    """The clipped sum of cross-entropy's gradients as torch makes it: all of them at once, then their norms."""
    torch.set_num_threads(1)
    parameters = {name: torch.tensor(content.copy()) for name, content in split_theta(theta, layout).items()}
    x, y = torch.tensor(batch.features), torch.tensor(batch.labels)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for index in range(len(weights) // 2):
            x = (torch.relu(x) if index else x) @ weights[f"w{index}"] + weights[f"b{index}"]
        return torch.nn.functional.cross_entropy(x, y)

    by_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def clipped_sum() -> F32:
        gradients = by_row(parameters, x, y)
        norms = torch.sqrt(sum(g.square().flatten(1).sum(1) for g in gradients.values()))
        factors = torch.clamp(CLIP_NORM / norms, max=1.0)
        sums = [torch.einsum("n,n...->...", factors, gradients[slot.name]).flatten() for slot in layout.slots]
        return torch.cat(sums).numpy()

    return clipped_sum


def cpu_ms(calls: list[Callable[[], object]]) -> list[float]:
    """Median CPU milliseconds of each call; they take turns, each long enough for the clock."""
    repeats = [max(1, int(3e-3 / max(_spent_s(call, 3) / 3, 1e-7))) for call in calls]
    spent = [[_spent_s(call, n) / n for call, n in zip(calls, repeats, strict=True)] for _ in range(TURNS)]
    return [1e3 * median(turns) for turns in zip(*spent, strict=True)]


def _spent_s(call: Callable[[], object], times: int) -> float:
    start_s = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32, help="of a batch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    rows = [measure(name, widths, options.rows) for name, widths in TAILS.items()]
    print("| tail | plain ms | private ms | private / plain | torch vmap ms | torch / private | difference |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row.tail, f"{row.plain_ms:.3f}", f"{row.private_ms:.3f}", f"{row.private_ms / row.plain_ms:.2f}"]
        if row.torch_ms is not None:
            cells += [f"{row.torch_ms:.2f}", f"{row.torch_ms / row.private_ms:.1f}", f"{row.difference:.1e}"]
        print(f"| {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
