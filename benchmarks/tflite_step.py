"""What a train step costs on LiteRT beside onnxruntime, and how far their results are apart.

    python benchmarks/tflite_step.py [--only TEXT]

Both take turns on the same batch from the same weights; times are medians of the process's CPU time, one thread.
"apart" is the largest difference of the gradient, relative to its largest element. The last columns are the tail's
answer to one sample: LiteRT reads theta as an input, onnxruntime holds it as constants.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from training.nets import CLASSES, NETS, Dense, Net
from training.onnx_nets import forward_of, parameters_of
from training.peak import TERMS

from fd_runtime.models.litert_model import LiteRtTail, LiteRtTrainSession
from fd_runtime.models.model import Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxTail, OnnxTrainSession
from model_export.surgery import theta_of
from model_export.tflite import lower_tail, lower_train_step
from model_export.trainstep import compile_train_step

MORE_NETS = {"tail 64-48-10": Net((64,), (Dense(48, has_relu=True), Dense(CLASSES)))}
CASES = [("tail 64-48-10", 64), *((name, 32) for name in ("mlp 1280-128-10", "cnn-m", "tail2", "smalldw", "smallcnn"))]
TURNS, BURST_MS = 15, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure the nets whose name contains this")
    only = parser.parse_args().only
    print("| net | B | LiteRT, ms | onnxruntime, ms | ratio | apart | answer on LiteRT, ms | on onnxruntime, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in CASES:
        if only in name:
            print(measure(name, rows), flush=True)


def measure(name: str, rows: int) -> str:
    net = (NETS | MORE_NETS)[name]
    forward, batch = forward_of(net), batch_of(net, rows)
    given = {"input_name": "input", "logits_name": "logits", "trainable": parameters_of(forward), "batch_rows": rows}
    step = compile_train_step(forward.model, optimizer="sgd", **given)
    state = OptimizerState.fresh(theta_of(forward.model, step.layout), step.slots)
    litert = LiteRtTrainSession(lower_train_step(step.model, rows), state)
    onnxruntime = OnnxTrainSession(step.model.SerializeToString(), state)
    moves = [_moved(session, batch) for session in (litert, onnxruntime)]
    apart = np.abs(moves[0] - moves[1]).max() / np.abs(moves[1]).max()
    times = _medians_ms([lambda: litert.run(batch, **TERMS), lambda: onnxruntime.run(batch, **TERMS)])

    tails = [
        LiteRtTail(lower_tail(forward.tail(), step.layout), state.theta),
        OnnxTail(forward.tail().SerializeToString(), step.layout),
    ]
    answers = _medians_ms([lambda tail=tail: tail.logits(batch.features[:1]) for tail in tails])
    step_ms, answer_ms = (" | ".join(f"{time:.3f}" for time in pair) for pair in (times, answers))
    return f"| {name} | {rows} | {step_ms} | {times[0] / times[1]:.2f} | {apart:.1e} | {answer_ms} |"


def batch_of(net: Net, rows: int) -> Batch:
    rng = np.random.default_rng(1)
    return Batch(
        features=rng.standard_normal((rows, *net.sample_shape)).astype(np.float32),
        labels=rng.integers(0, CLASSES, rows),
        targets=rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
        alpha=rng.integers(0, 2, rows).astype(np.float32),
        weight=np.ones(rows, np.float32),
    )


def _moved(session: LiteRtTrainSession | OnnxTrainSession, batch: Batch) -> np.ndarray:
    """How far one plain step moves theta, which stays where it was: the gradient, times the learning rate."""
    before = session.state
    session.run(batch, learning_rate=1.0, temperature=2.0)
    moved = session.state.theta - before.theta
    session.state = before
    return moved


def _medians_ms(works: list[Callable[[], object]]) -> list[float]:
    """CPU time of each, in ms, in bursts in turn."""
    bursts = [max(1, round(BURST_MS / max(_cpu_ms(work), 1e-3))) for work in works]
    turns = [[_cpu_ms(work, times) for work, times in zip(works, bursts, strict=True)] for _ in range(TURNS)]
    return [median(column) for column in zip(*turns, strict=True)]


def _cpu_ms(work: Callable[[], object], times: int = 1) -> float:
    begin = time.process_time()
    for _ in range(times):
        work()
    return 1e3 * (time.process_time() - begin) / times


if __name__ == "__main__":
    main()
