"""What the runtime costs a device: starting a trainer, its memory, new weights, and predicting in int8.

    python benchmarks/runtime.py [--families cnn-s cnn-m cnn-l] [--shape 1 28 28] [--json FILE]

CPU time of one thread throughout. Start and memory are medians over fresh processes that do what an agent's worker
does: open a bundle on onnxruntime, train. Predictions are medians over calls that take turns, so that a busy machine
disturbs their ratios little. A bundle is a backbone and a tail, in a session each: both float ("float bundle"), the
backbone in int8 ("deployed"), or both ("int8 tail"); "one session" is the whole model at once, in int8 as onnxruntime's
own quantiser makes it. The weights are as they were drawn: nothing here depends on what they say.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, cast

os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.models.model import F32
from fd_runtime.models.onnx_model import OnnxBackbone, OnnxTail
from model_export import FactoryData, ForwardModel, QuantisationTerms, Recipe, build
from model_export.families import build_family
from model_export.forward import FEATURES
from model_export.quantisation import quantise, quantise_tail
from model_export.quantisation.codes import U8
from model_export.surgery import theta_of

CLASSES, TRAIN_ROWS = 10, 32
TRAINERS = (  # name, family, samples, what trains, most MB
    ("head of cnn-m", "cnn-m", (1, 28, 28), "tail", 70.0),
    ("all of cnn-m", "cnn-m", (1, 28, 28), "everything", 110.0),
    ("two inverted residuals of dw-m", "dw-m", (3, 32, 32), "last 7", 110.0),
)
BATCHES = (1, 8, 32, 64)
PROCESSES, TURNS = 5, 41

# {rows} labelled rows in a batch, six steps; peak memory is the kernel's own count, which starts anew with the program.
WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from fd_runtime.artifacts import load_bundle
model = load_bundle(Path(sys.argv[1])).open("onnxruntime")
started_s = time.process_time()
from fd_runtime.models.model import Batch
rng, task, rows = np.random.default_rng(0), model.manifest.task, int(sys.argv[2])
features = model.features(rng.random((rows, *task.sample_shape), np.float32))
batch = Batch(
    features, np.arange(rows) % 10, np.full((rows, 10), 0.1, np.float32), np.ones(rows, "f4"), np.ones(rows, "f4")
)
for _ in range(6):
    model.train_session.run(batch, learning_rate=1e-3, temperature=2.0)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(started_s, int(peak) / 1024, "torch" in sys.modules or "onnx" in sys.modules)
"""


@dataclass(frozen=True)
class Figure:
    """A measured value and the most that it may be."""

    name: str
    measured: float
    unit: str
    goal: float

    @property
    def verdict(self) -> str:
        return "holds" if self.measured <= self.goal else "MISSED"


def process_figures(folder: Path) -> Iterator[Figure]:
    """Start and peak memory of trainers."""
    for name, family, shape, trains, goal_mb in TRAINERS:
        bundle = bundle_of(family, shape, trains, folder / name)
        runs = [worker(bundle) for _ in range(PROCESSES)]
        yield Figure(f"{name}: start, interpreter to open bundle", median(r[0] for r in runs), "s", 0.3)
        yield Figure(f"{name}: peak memory of six steps, B={TRAIN_ROWS}", median(r[1] for r in runs), "MB", goal_mb)


def bundle_of(family: str, shape: tuple[int, ...], trains: str, folder: Path) -> Path:
    task = Task(tuple(map(str, range(CLASSES))), shape, "float32", Preprocessing())
    recipe = Recipe("bench", family, pretraining=None, tflite="none", trains=trains)
    build(recipe, task, FactoryData.unlabelled(some_samples(shape, 64)), folder)
    return folder


def worker(bundle: Path) -> tuple[float, float]:
    """CPU seconds to the open model, and peak MB, of a fresh process."""
    command = [sys.executable, "-c", WORKER, str(bundle), str(TRAIN_ROWS)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    started_s, peak_mb, is_heavy = answer.stdout.split()
    assert is_heavy == "False", "a trainer must load neither torch nor onnx"
    return float(started_s), float(peak_mb)


def swap_figures(forward: ForwardModel) -> Iterator[Figure]:
    """New weights in a float tail, up to its first answer."""
    name = forward.model.graph.name
    for part, model in (("the tail", forward), ("all", ForwardModel(forward.model, features=""))):
        graph = model.tail()
        layout = layout_of(graph, forward)
        tail, theta = OnnxTail(graph.SerializeToString(), layout), theta_of(graph, layout)
        extents = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim[1:]]
        (swap_ms,) = cpu_ms(partial(_swap, tail, theta, np.zeros((1, *extents), np.float32)))
        yield Figure(f"{name}: new weights in {part}, to the first answer", swap_ms, "ms", 10.0)


def _swap(tail: OnnxTail, theta: F32, features: F32) -> None:
    tail.load(theta)
    tail.logits(features)


def layout_of(tail: onnx.ModelProto, forward: ForwardModel) -> ThetaLayout:
    stored = [initializer for initializer in tail.graph.initializer if initializer.name in forward.parameters]
    return ThetaLayout.of((initializer.name, tuple(initializer.dims)) for initializer in stored)


Times: TypeAlias = dict[str, float]
"""CPU milliseconds by arrangement."""


def prediction_times(forward: ForwardModel, shape: tuple[int, ...], folder: Path) -> Iterator[tuple[int, Times]]:
    """Every arrangement on the same samples, by batch."""
    arrangements = arrangements_of(forward, some_samples(shape, 200), folder)
    for rows in BATCHES:
        calls = [partial(call, some_samples(shape, rows)) for call in arrangements.values()]
        yield rows, dict(zip(arrangements, cpu_ms(*calls), strict=True))


def prediction_figures(name: str, rows: int, times: Times) -> Iterator[Figure]:
    yield Figure(f"{name}, B={rows}: deployed over float bundle", times["deployed"] / times["float bundle"], "x", 1.0)
    if rows == 1:
        for other in ("int8 tail", "one session, int8"):
            yield Figure(f"{name}, B={rows}: deployed over {other}", times["deployed"] / times[other], "x", 1.2)


def arrangements_of(forward: ForwardModel, samples: F32, folder: Path) -> dict[str, Callable[[F32], object]]:
    quantised, floats = quantise(forward, samples), quantise(forward, samples, QuantisationTerms("none"))
    codes = cast("U8", OnnxBackbone(quantised.backbone.SerializeToString()).extract(samples))
    int8_tail = quantise_tail(quantised.tail, codes, QuantisationTerms(tolerance=0.99))
    whole = ForwardModel(forward.model, features="").tail()
    opened = partial(_opened, layout=layout_of(forward.tail(), forward))
    return {
        "deployed": bundled(quantised.backbone, opened(quantised.tail)),
        "int8 tail": bundled(quantised.backbone, opened(int8_tail)),
        "float bundle": bundled(floats.backbone, opened(floats.tail)),
        "one session, int8": opened(all_int8(whole, samples, folder / "int8.onnx")).logits,
        "one session, float": opened(whole).logits,
    }


def bundled(backbone: onnx.ModelProto, tail: OnnxTail) -> Callable[[F32], object]:
    """The parts of a bundle, one after the other, as a device calls them."""
    first = OnnxBackbone(backbone.SerializeToString())
    return lambda batch: tail.logits(first.extract(batch))


def _opened(graph: onnx.ModelProto, layout: ThetaLayout) -> OnnxTail:
    """A graph `features` -> `logits` that keeps its weights, so that the layout does not matter."""
    return OnnxTail(graph.SerializeToString(), layout)


def all_int8(whole: onnx.ModelProto, samples: F32, file: Path) -> onnx.ModelProto:
    """The whole model as onnxruntime's quantiser makes it: static, QDQ, weights by channel."""
    model = onnx.ModelProto.FromString(whole.SerializeToString())  # the quantiser empties what it is given
    add_pre_process_metadata(model)  # or it warns; our graphs need no pre-processing
    quantize_static(
        model,
        file,
        Calibration(samples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(file)


class Calibration(CalibrationDataReader):
    def __init__(self, samples: F32) -> None:
        self._batches = iter([{FEATURES: samples}])

    def get_next(self) -> Any:
        return next(self._batches, None)


def cpu_ms(*calls: Callable[[], object]) -> list[float]:
    """Median CPU milliseconds of each call; they take turns, each long enough for the clock."""
    repeats = [max(1, int(3e-3 / max(_spent_s(call, 3) / 3, 1e-7))) for call in calls]
    spent = [[_spent_s(call, n) / n for call, n in zip(calls, repeats, strict=True)] for _ in range(TURNS)]
    return [1e3 * median(turns) for turns in zip(*spent, strict=True)]


def _spent_s(call: Callable[[], object], times: int) -> float:
    start_s = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - start_s


def some_samples(shape: tuple[int, ...], rows: int) -> F32:
    return np.random.default_rng(rows).random((rows, *shape), np.float32)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, ["---"] * len(headings), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["cnn-s", "cnn-m", "cnn-l"], help="that predict")
    parser.add_argument("--shape", nargs=3, type=int, default=[1, 28, 28], metavar=("C", "H", "W"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    shape, times = tuple(options.shape), {}
    with tempfile.TemporaryDirectory() as folder:
        figures = list(process_figures(Path(folder)))
        for name in options.families:
            forward = build_family(name, shape, CLASSES, seed=0)
            figures += swap_figures(forward)
            for rows, ms in prediction_times(forward, shape, Path(folder)):
                figures += prediction_figures(name, rows, ms)
                times[f"{name}, B={rows}"] = ms
    cells = ([f.name, f"<= {f.goal:g} {f.unit}", f"{f.measured:.3g} {f.unit}", f.verdict] for f in figures)
    print(table(["figure", "goal", "measured", ""], cells))
    arrangements = list(next(iter(times.values())))
    print()
    print(table(["CPU ms", *arrangements], ([name, *(f"{ms[a]:.3f}" for a in ms)] for name, ms in times.items())))
    if options.json:
        options.json.write_text(json.dumps({"figures": [asdict(f) for f in figures], "cpu_ms": times}, indent=2))


if __name__ == "__main__":
    main()
