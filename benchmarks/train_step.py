"""What a train step costs: CPU time of one thread, and peak memory, beside torch eager where torch is installed.

    python benchmarks/train_step.py [--json FILE] [--only TEXT] [--plain] [--no-memory]

Both runtimes take turns on the same batch from the same weights, and their first losses must agree; times are medians
of the process's CPU time, so that a busy machine disturbs the ratio little. `x gemm` is the step's time over that of
its useful multiplications at the rate that this machine's onnxruntime reaches in a product of 512x512 matrices.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
from training.nets import CLASSES, NETS, training_flops
from training.onnx_nets import forward_of, parameters_of
from training.peak import TERMS

from fd_runtime.models.model import Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.graph import GraphBuilder, tensor
from model_export.surgery import theta_of
from model_export.trainstep import TrainStep, compile_train_step

try:
    from training.torch_nets import TorchSession
except ImportError:
    TorchSession = None

CASES = [(name, rows) for name in NETS for rows in (8, 32)] + [("tail2", 128)]
BURST_MS = 30.0
BUDGET_S = 2.0
"""CPU time that one case may take, all repetitions of both runtimes."""
PEAK = Path(__file__).with_name("training") / "peak.py"
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Cost:
    """Times in ms; memory in MB, not a number where it was not measured."""

    net: str
    rows: int
    step_ms: float
    torch_ms: float
    times_gemm: float
    peak_mb: float = NAN
    torch_peak_mb: float = NAN

    def row(self) -> str:
        times = (
            f"{self.step_ms:.3f} | {self.torch_ms:.3f} | {self.torch_ms / self.step_ms:.2f}x | {self.times_gemm:.1f}"
        )
        memory = "| | |" if np.isnan(self.peak_mb) else f"| {self.peak_mb:.0f} | {self.torch_peak_mb:.0f} |"
        return f"| {self.net} | {self.rows} | {times} {memory}"


@dataclass(frozen=True, slots=True)
class Case:
    """A train step with what it starts from and what it reads."""

    step: TrainStep
    theta: np.ndarray
    batch: Batch


def main() -> None:
    arguments = _arguments()
    gflops = sgemm_gflops()
    print(f"onnxruntime multiplies 512x512 matrices at {gflops:.0f} GFLOP/s; CPU time of one thread")
    print("| net | B | step, ms | torch, ms | torch / ours | x gemm | peak, MB | torch, MB |")
    print("|---|---|---|---|---|---|---|---|")
    costs = []
    for name, rows in CASES:
        if arguments.only in f"{name} B={rows}":
            costs.append(measure(name, rows, gflops, lowered=not arguments.plain, with_memory=not arguments.no_memory))
            print(costs[-1].row(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"sgemm_gflops": gflops, "costs": [asdict(c) for c in costs]}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", default="", help="measure the cases whose name, such as `tail2 B=32`, contains this")
    parser.add_argument("--plain", action="store_true", help="differentiate the graph as it is, without lowering it")
    parser.add_argument("--no-memory", action="store_true", help="skip the peaks, each of which needs a process")
    return parser.parse_args()


def measure(name: str, rows: int, gflops: float, *, lowered: bool, with_memory: bool) -> Cost:
    case = prepare(name, rows, lowered=lowered)
    step_ms, torch_ms = times_ms(name, case)
    ideal_ms = training_flops(NETS[name], rows) / gflops / 1e6
    peaks = peaks_mb(name, case) if with_memory and (name, rows) == ("tail2", 32) else (NAN, NAN)
    return Cost(name, rows, step_ms, torch_ms, step_ms / ideal_ms, *peaks)


def prepare(name: str, rows: int, *, lowered: bool) -> Case:
    forward, rng = forward_of(NETS[name]), np.random.default_rng(1)
    step = compile_train_step(
        forward.model,
        input_name="input",
        logits_name="logits",
        trainable=parameters_of(forward),
        optimizer="momentum",
        batch_rows=rows,
        lowered=lowered,
    )
    batch = Batch(
        features=rng.standard_normal((rows, *NETS[name].sample_shape)).astype(np.float32),
        labels=rng.integers(0, CLASSES, rows),
        targets=rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
        alpha=rng.integers(0, 2, rows).astype(np.float32),
        weight=np.ones(rows, np.float32),
    )
    return Case(step, theta_of(forward.model, step.layout), batch)


def times_ms(name: str, case: Case) -> tuple[float, float]:
    """Return the medians of our step and of torch's, which take turns."""
    ours = OnnxTrainSession(case.step.model.SerializeToString(), OptimizerState.fresh(case.theta, case.step.slots))
    steps: list[Callable[[], float]] = [lambda: ours.run(case.batch, **TERMS)]
    if TorchSession is not None:
        slots = case.step.layout.slots
        twin = TorchSession(NETS[name], [case.theta[s.offset : s.end].reshape(s.shape) for s in slots])
        arrays = _arrays(case.batch)
        steps.append(lambda: twin.run(arrays, **TERMS))
    losses = [step() for step in steps]
    assert max(losses) - min(losses) < 1e-3, f"{name}: the runtimes train different nets: losses {losses}"
    medians = [median(column) for column in zip(*_turns(steps), strict=True)]
    return (medians[0], medians[1]) if len(medians) == 2 else (medians[0], NAN)


def _turns(steps: list[Callable[[], float]]) -> list[list[float]]:
    """CPU times of a step in ms, in bursts in turn, until the budget is spent: training too repeats one step."""
    bursts = [max(1, round(BURST_MS / _cpu_ms(step))) for step in steps]
    turns: list[list[float]] = []
    begin = time.process_time()
    while len(turns) < 5 or time.process_time() - begin < BUDGET_S:
        turns.append([_cpu_ms(step, times) for step, times in zip(steps, bursts, strict=True)])
    return turns


def _cpu_ms(work: Callable[[], object], times: int = 1) -> float:
    begin = time.process_time()
    for _ in range(times):
        work()
    return 1e3 * (time.process_time() - begin) / times


def peaks_mb(name: str, case: Case) -> tuple[float, float]:
    """Return the peak resident memory of a process that trains with our step, and of one that does with torch."""
    with tempfile.TemporaryDirectory() as folder:
        graph, batch = Path(folder, "step.onnx"), Path(folder, "batch.npz")
        onnx.save(case.step.model, graph)
        np.savez(batch, **_arrays(case.batch), theta=case.theta)
        ours = _peak_mb("onnx", str(graph), batch)
        return ours, _peak_mb("torch", name, batch) if TorchSession is not None else NAN


def _peak_mb(runtime: str, what: str, batch: Path) -> float:
    command = [sys.executable, str(PEAK), runtime, what, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout)


def _arrays(batch: Batch) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in Batch.__slots__}


def sgemm_gflops() -> float:
    """The rate of onnxruntime's matrix product on this machine, one thread."""
    size = 512
    build = GraphBuilder({"a", "b"})
    build.op("MatMul", "a", "b", output="c")
    square = (size, size)
    model = build.model("gemm", [tensor("a", square), tensor("b", square)], [tensor("c", square)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {name: np.ones(square, np.float32) for name in "ab"}
    return 2 * size**3 / median(_cpu_ms(lambda: session.run(None, feed)) for _ in range(20)) / 1e6


if __name__ == "__main__":
    main()
