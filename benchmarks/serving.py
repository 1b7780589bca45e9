"""What the agent adds to a prediction: over the bare sessions, per sample at a batch of one.

    python benchmarks/serving.py [--families cnn-s cnn-m cnn-l]

CPU time of the whole process, medians over calls that take turns, so that a busy machine disturbs their ratios little.

    run, one session   `InferenceSession.run` of the whole model in int8, as onnxruntime's own quantiser makes it, on an
                       input that is preprocessed already: what a model costs without an agent
    run, its own two   the same of the bundle's backbone and tail
    a script           one session, with the preprocessing before it and softmax and argmax after it, in NumPy
    predict            `Predictor.predict`: from the sample as it was recorded to label, confidence, name; times and
                       drift watched
    loop               the same from a source's thread to an output
    local API          the same through HTTP on a Unix socket, client and server together
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from runtime import all_int8, cpu_ms, table  # sets the threads of numpy and onnxruntime before they load

from edge_agent.api.addresses import listen_unix
from edge_agent.api.client import _UnixConnection
from edge_agent.api.routes import Routes
from edge_agent.api.server import ApiServer, Terms
from edge_agent.inference.drift_watch import DriftWatch
from edge_agent.inference.loop import Given, Loop
from edge_agent.inference.outputs.callback import Callback
from edge_agent.inference.outputs.recent import Recent
from edge_agent.inference.predictor import Predictor
from edge_agent.inference.settings import DriftSettings, InferenceSettings
from fd_protocol.manifest import Preprocessing, Role, Task
from fd_runtime.artifacts import Bundle
from fd_runtime.models.onnx_model import OnnxBackbone, OnnxTail
from fd_runtime.space import preprocessed
from model_export import FactoryData, ForwardModel, Recipe, build
from model_export.families import build_family
from model_export.forward import FEATURES

TASK = Task(tuple("0123456789"), (1, 28, 28), "uint8", Preprocessing(1 / 255))
ROUNDS, SAMPLES = 15, 400
WAYS = ("run, one session", "run, its own two", "a script", "predict", "loop", "local API")
RATIOS = (("predict", "run, one session"), ("predict", "run, its own two"), ("predict", "a script"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["cnn-s", "cnn-m", "cnn-l"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spent = {family: spent_us(family, Path(folder)) for family in options.families}
    print(table(["model", *WAYS], ([family, *(f"{us:.1f}" for us in row.values())] for family, row in spent.items())))
    print()
    heads = [f"{one} / {other}" for one, other in RATIOS]
    ratios = ([family, *(f"{row[one] / row[other]:.2f}" for one, other in RATIOS)] for family, row in spent.items())
    print(table(["model", *heads], ratios))
    print("\nMicroseconds of CPU a sample, at a batch of one. Target: predict / run, one session <= 1.05.")


def spent_us(family: str, folder: Path) -> dict[str, float]:
    """CPU microseconds of a sample, each way."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (400, *TASK.sample_shape), dtype=np.uint8)
    data = FactoryData(pictures[:0], np.zeros(0, np.int64), pictures)
    bundle = build(Recipe("bench", family, pretraining=None, tflite="none"), TASK, data, folder / family)
    sample = pictures[:1]
    alone = cpu_ms(*calls_of(bundle, family, sample, folder))
    threaded = [loop_ms(bundle, sample), api_ms(bundle, sample, folder)]
    return dict(zip(WAYS, (1e3 * ms for ms in [*alone, *threaded]), strict=True))


def calls_of(bundle: Bundle, family: str, sample: np.ndarray, folder: Path) -> list[Callable[[], object]]:
    inputs = preprocessed(sample, TASK)
    whole = ForwardModel(build_family(family, TASK.sample_shape, 10, seed=0).model, features="").tail()
    int8 = all_int8(whole, preprocessed(np.repeat(sample, 32, axis=0), TASK), folder / f"{family}.int8.onnx")
    one = session_of(OnnxTail(int8.SerializeToString(), bundle.manifest.layout))
    backbone = session_of(OnnxBackbone(bundle.read(Role.BACKBONE)))
    tail = session_of(OnnxTail(bundle.read(Role.TAIL), bundle.manifest.layout))

    def script() -> object:
        """What anyone writes who has no agent."""
        logits = one.run(["logits"], {FEATURES: sample.astype(np.float32) * np.float32(1 / 255)})[0]
        powers = np.exp(logits - logits.max())
        chances = powers / powers.sum()
        label = int(chances.argmax())
        return label, float(chances[0, label])

    predictor = predictor_of(bundle)
    return [
        lambda: one.run(["logits"], {FEATURES: inputs}),
        lambda: tail.run(["logits"], {"features": backbone.run(["features"], {"input": inputs})[0]}),
        script,
        lambda: predictor.predict(sample),
    ]


def session_of(part: Any) -> InferenceSession:
    """The bare session inside, with the very settings that the agent runs it with."""
    return part._session  # noqa: SLF001 - to measure what stands around it


def predictor_of(bundle: Bundle) -> Predictor:
    watch = DriftWatch(bundle.manifest, DriftSettings())
    return Predictor(bundle.open("onnxruntime"), bundle.open_tail("onnxruntime"), observe=watch.observe)


def loop_ms(bundle: Bundle, sample: np.ndarray) -> float:
    """CPU milliseconds of a sample from a source to an output, one at a time."""
    is_said = threading.Semaphore(0)
    loop = Loop(predictor_of(bundle), InferenceSettings(), outputs=[Callback(lambda _: is_said.release())])
    loop.start()
    captured = Given(sample[0], "s", 0, None, "bench")

    def through() -> None:
        loop.deliver(captured)
        is_said.acquire()

    try:
        return _spent_ms(through)
    finally:
        loop.close()


def api_ms(bundle: Bundle, sample: np.ndarray, folder: Path) -> float:
    """CPU milliseconds of a sample through the local API, client and server together."""
    body = io.BytesIO()
    np.save(body, sample)
    with served(bundle, folder / "api.sock") as path:
        connection = _UnixConnection(path, 10.0)

        def ask() -> None:
            connection.request("POST", "/v1/predict", body.getvalue(), {"Content-Type": "application/x-npy"})
            assert connection.getresponse().read()

        try:
            return _spent_ms(ask)
        finally:
            connection.close()


@contextmanager
def served(bundle: Bundle, path: Path) -> Iterator[Path]:
    predictor, recent = predictor_of(bundle), Recent()
    loop = Loop(predictor, InferenceSettings(), outputs=[recent])
    routes = Routes(loop, recent, TASK, predictor.latency, {}, has_metrics=False)
    server = ApiServer(listen_unix(path), routes, Terms(None, ("localhost",)))
    try:
        yield path
    finally:
        server.close()


def _spent_ms(call: Callable[[], object]) -> float:
    """Median CPU milliseconds of a call, all threads of this process together."""
    call()
    spent = []
    for _ in range(ROUNDS):
        begin_s = time.process_time()
        for _ in range(SAMPLES):
            call()
        spent.append(1e3 * (time.process_time() - begin_s) / SAMPLES)
    return median(spent)


if __name__ == "__main__":
    main()
