"""Models that Keras, scikit-learn and torch wrote become bundles that train and infer on every runtime that is here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fd_protocol.manifest import Task
from fd_runtime.models.model import Batch
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.importing import from_onnx
from model_export.proving import InterpreterError, interpreter_for
from model_export.recipe import FactoryData, Recipe
from model_export.verification.verify import verify

MODELS = sorted((Path(__file__).parent / "models").glob("*.onnx"))


def has_tflite_runtime():
    try:
        return interpreter_for("tflite-runtime") is not None
    except InterpreterError:
        return False


def task_of(model):
    (read,), (told,) = model.graph.input, model.graph.output
    shape = tuple(extent.dim_value for extent in read.type.tensor_type.shape.dim[1:])
    classes = told.type.tensor_type.shape.dim[1].dim_value
    return Task(tuple(f"class {number}" for number in range(classes)), shape, "float32")


@pytest.mark.parametrize("trains", ["head", "everything"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_of_another_tool_trains_and_infers_on_every_runtime(path, trains, tmp_path):
    task = task_of(from_onnx(path).model)
    samples = np.random.default_rng(0).normal(size=(40, *task.sample_shape)).astype(np.float32)
    recipe = Recipe(
        "foreign", model=path, trains=trains, tflite="required" if has_tflite_runtime() else "where-possible"
    )
    bundle = build(recipe, task, FactoryData.unlabelled(samples), tmp_path / "bundle")
    expected = {"onnxruntime", "litert", *(["tflite-runtime"] if has_tflite_runtime() else [])}
    assert expected <= set(bundle.manifest.verified_on)
    found = verify(bundle.folder)
    assert {line.variant for line in found.parity} >= {"float", *expected}
    assert min(line.agreement for line in found.parity) > 0.8
    for runtime in ("onnxruntime", "litert"):
        assert losses(bundle.open(runtime), samples)[-1] < losses(bundle.open(runtime), samples)[0]


def losses(model, samples, steps=10):
    """Of learning some labels by heart."""
    rows = len(samples)
    classes = len(model.manifest.task.classes)
    batch = Batch(
        model.features(preprocessed(samples, model.manifest.task)),
        np.arange(rows) % classes,
        np.full((rows, classes), 1 / classes, np.float32),
        np.ones(rows, np.float32),
        np.ones(rows, np.float32),
    )
    return [model.train_session.run(batch, learning_rate=1e-2, temperature=1.0) for _ in range(steps)]
