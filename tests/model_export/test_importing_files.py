"""Files that other tools made: each becomes a forward model that answers, trains and tells nothing of its maker."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from fd_runtime.models.onnx_model import OnnxGraph
from model_export.importing import from_onnx
from model_export.trainstep.compile import compile_train_step
from tests.model_export.foreign import answers, ops, softmax

MODELS = Path(__file__).parent / "models"
NAMES = ["keras_cnn_tensorflow", "keras_cnn_torch", "mobilenet_v2", "sklearn_binary", "sklearn_mlp"]
CLASSIFIERS = [name for name in NAMES if name != "mobilenet_v2"]


def load(name: str):
    """The imported model, samples as it wants them, and what is recorded about them."""
    recorded = np.load(MODELS / f"{name}.npz")
    samples = recorded["samples"].astype(np.float32)
    return from_onnx(MODELS / f"{name}.onnx"), samples / 16 if "keras" in name else samples, recorded


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_as_its_own_tool_does(name: str) -> None:
    imported, samples, recorded = load(name)
    probabilities = softmax(answers(imported, samples))
    np.testing.assert_allclose(probabilities, recorded["answers"], atol=1e-5)
    assert (probabilities.argmax(axis=1) == recorded["labels"]).mean() > 0.9


def test_a_mobilenet_answers_as_torch_does_without_torch() -> None:
    imported, samples, recorded = load("mobilenet_v2")
    np.testing.assert_allclose(answers(imported, samples), recorded["answers"], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_form_of_our_own_models(name: str) -> None:
    imported, samples, recorded = load(name)
    model = imported.model
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (10, [("", 18)])
    assert [info.name for info in [*model.graph.input, *model.graph.output]] == ["input", "logits"]
    shapes = [
        [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in [*model.graph.input, *model.graph.output]
    ]
    assert shapes == [["N", *samples.shape[1:]], ["N", recorded["answers"].shape[1]]]
    assert not {"Constant", "Identity", "Dropout", "Shape", "Softmax"}.intersection(ops(imported))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 5])
def test_its_batch_is_open(name: str, rows: int) -> None:
    imported, samples, _ = load(name)
    few = np.resize(samples, (rows, *samples.shape[1:]))
    np.testing.assert_allclose(answers(imported, few)[0], answers(imported, samples)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_it_trains(name: str) -> None:
    imported, samples, recorded = load(name)
    step = compile_train_step(
        imported.model,
        input_name="input",
        logits_name="logits",
        trainable=imported.parameters,
        optimizer="sgd",
        with_gradient=True,
    )
    rows, classes = len(samples), recorded["answers"].shape[1]
    theta = np.concatenate([onnx.numpy_helper.to_array(t).ravel() for t in stored(imported.model, imported.parameters)])
    feed = {
        "features": samples,
        "labels": np.arange(rows) % classes,
        "targets": np.full((rows, classes), 1 / classes, np.float32),
        **dict.fromkeys(("alpha", "weight"), np.ones(rows, np.float32)),
        **{name: np.array(1.0, np.float32) for name in ("learning_rate", "temperature", "max_norm", "step")},
        "prox": np.array(0.0, np.float32),
        **dict.fromkeys(("theta", "reference"), theta),
    }
    graph = OnnxGraph(step.model.SerializeToString())
    gradient = graph.run({info.name: feed[info.name] for info in step.model.graph.input})["gradient"]
    assert np.isfinite(gradient).all()
    silent = [slot.name for slot in step.layout.slots if not gradient[slot.offset : slot.end].any()]
    assert silent == []


def stored(model: onnx.ModelProto, names) -> list[onnx.TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.name in names]


def test_batch_normalization_stays_and_its_scale_and_shift_train() -> None:
    imported, _, _ = load("mobilenet_v2")
    normalisations = [node for node in imported.model.graph.node if node.op_type == "BatchNormalization"]
    assert len(normalisations) == 13
    assert all({node.input[1], node.input[2]} <= set(imported.parameters) for node in normalisations)


def test_convolutions_get_no_bias_that_their_maker_did_not_give_them() -> None:
    imported, _, _ = load("mobilenet_v2")
    assert all(len(node.input) == 2 for node in imported.model.graph.node if node.op_type == "Conv")


def test_parameters_keep_the_names_that_torch_gave_them_in_the_order_in_which_they_are_read() -> None:
    imported, _, _ = load("mobilenet_v2")
    assert imported.parameters[:3] == ("features.0.0.weight", "features.0.1.weight", "features.0.1.bias")
    assert imported.parameters[-2:] == ("classifier.1.weight", "classifier.1.bias")


def test_the_scaling_of_scikit_learn_is_no_parameter() -> None:
    imported, _, _ = load("sklearn_mlp")
    assert ops(imported) == ["Sub", "Mul", "MatMul", "Add", "Relu", "MatMul", "Add"]
    assert imported.parameters == ("coefficient", "intercepts", "coefficient1", "intercepts1")


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("sklearn_mlp", "next_activations"),
        ("mobilenet_v2", "view"),
        ("keras_cnn_tensorflow", "sequential_1/dense_1/Relu"),
    ],
)
def test_the_tail_begins_before_the_last_dense_layer(name: str, features: str) -> None:
    imported, samples, _ = load(name)
    assert imported.features == features
    frozen = OnnxGraph(imported.backbone().SerializeToString()).run({"input": samples})["features"]
    tail = OnnxGraph(imported.tail().SerializeToString()).run({"features": frozen})["logits"]
    np.testing.assert_allclose(tail, answers(imported, samples), atol=1e-5)


def test_images_of_keras_stay_as_they_are_and_inner_transposes_go() -> None:
    imported, samples, _ = load("keras_cnn_torch")
    assert samples.shape[1:] == (8, 8, 1)
    assert ops(imported).count("Transpose") == 2  # at the input, and before the elements are flattened


@pytest.mark.parametrize("name", NAMES)
def test_the_same_file_gives_the_same_bytes(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    once, again = (from_onnx(path).model.SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("name", NAMES)
def test_an_import_can_be_imported(name: str) -> None:
    once = from_onnx(MODELS / f"{name}.onnx")
    again = from_onnx(once.model)
    assert (again.parameters, again.features) == (once.parameters, once.features)
    assert ops(again) == ops(once)
