"""A recipe and data give a bundle that devices can open, and always the same one."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Preprocessing, Role, Task
from fd_runtime.models.model import Batch
from fd_runtime.space import preprocessed
from model_export.augment import Augmentation
from model_export.building import build, rows_of
from model_export.factory import factory_model
from model_export.families import FAMILIES, build_family, readers
from model_export.planning import liveness
from model_export.planning.selection import Budget
from model_export.pretrain import PretrainTerms
from model_export.proving import PYTHON_VARIABLE, InterpreterError
from model_export.quantisation import QuantisationTerms
from model_export.quantisation.running import run
from model_export.recipe import FactoryData, Recipe
from model_export.surgery import theta_of

TASK = Task(("zero", "one", "two"), (1, 8, 8), "uint8", Preprocessing(1 / 255))


def stripes(count, seed):
    """Images whose class is the pitch of their stripes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    waves = np.sin(np.arange(8)[None, :] * np.array([0.7, 1.6, 2.8])[labels][:, None] + rng.uniform(0, 6, (count, 1)))
    images = 128 + 80 * waves[:, None, None, :] + rng.normal(0, 10, (count, 1, 8, 8))
    return images.clip(0, 255).astype(np.uint8), labels


DATA = FactoryData(*stripes(90, 0), calibration=stripes(64, 1)[0])
RECIPE = Recipe("stripes", "cnn-s", pretraining=PretrainTerms(epochs=60))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build(RECIPE, TASK, DATA, tmp_path_factory.mktemp("bundle"))


def accuracy(bundle, runtime="onnxruntime"):
    samples, labels = stripes(300, 2)
    model = bundle.open(runtime)
    return np.mean(model.tail.logits(model.features(preprocessed(samples, TASK))).argmax(axis=1) == labels)


def test_a_pretrained_bundle_knows_its_task_on_every_runtime_it_was_proven_on(bundle):
    assert {"onnxruntime", "litert"} <= set(bundle.manifest.verified_on)
    assert accuracy(bundle) > 0.9
    assert accuracy(bundle, "litert") == pytest.approx(accuracy(bundle), abs=0.02)


def test_the_int8_backbone_answers_as_the_float_one_does(bundle, tmp_path):
    recipe = replace(RECIPE, quantisation=QuantisationTerms("none"), tflite="none")
    in_float = build(recipe, TASK, DATA, tmp_path / "float")
    assert in_float.manifest.features.dtype == "float32"
    assert accuracy(in_float) == pytest.approx(accuracy(bundle), abs=0.02)


def test_equal_recipes_give_equal_bundles_and_another_seed_another(bundle, tmp_path):
    again = build(RECIPE, TASK, DATA, tmp_path / "again")
    other = build(replace(RECIPE, seed=1), TASK, DATA, tmp_path / "other")
    assert again.digest == bundle.digest != other.digest


def test_theta_in_the_bundle_is_the_tail_of_the_factory_model(bundle):
    forward = factory_model(RECIPE, TASK, DATA)
    theta = np.frombuffer(bundle.read(Role.THETA), "<f4")
    np.testing.assert_array_equal(theta, theta_of(forward.model, bundle.manifest.layout))
    assert theta.size < sum(np.prod(i.dims) for i in forward.model.graph.initializer)


def test_without_pretraining_the_weights_stay_as_they_were_drawn_and_that_is_said(bundle, tmp_path, caplog):
    assert bundle.manifest.provenance["weights"] == "pretrained"
    with caplog.at_level("WARNING"):
        raw = build(replace(RECIPE, pretraining=None), TASK, DATA, tmp_path / "raw")
    assert "untrained" not in caplog.text  # as it was asked for
    empty = FactoryData(DATA.samples[:0], DATA.labels[:0], DATA.calibration)
    with caplog.at_level("WARNING"):
        bare = build(RECIPE, TASK, empty, tmp_path / "empty")
    assert "bundle stripes has untrained weights" in caplog.text
    assert bare.read(Role.THETA) == raw.read(Role.THETA)
    assert bare.manifest.provenance["weights"] == raw.manifest.provenance["weights"] == "fresh"


TASKS = {
    (1, 8, 8): TASK,
    (3, 32): Task(("a", "b", "c"), (3, 32), "float32"),
    (9,): Task(("a", "b"), (9,), "float32"),
    (12,): Task(("a", "b", "c", "d"), (12,), "int32", vocabulary=4),
}


def task_of(family):
    """The first task whose samples the family can read."""
    return next(t for shape, t in TASKS.items() if family in readers(shape, t.vocabulary))


def any_samples(task, count=40):
    rng = np.random.default_rng(0)
    if task.sample_dtype == "float32":
        return rng.normal(size=(count, *task.sample_shape)).astype(np.float32)
    return rng.integers(0, task.vocabulary or 256, (count, *task.sample_shape)).astype(task.sample_dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_becomes_a_bundle(family, tmp_path):
    task = task_of(family)
    data = FactoryData.unlabelled(any_samples(task))
    built = build(Recipe("any", family, pretraining=None), task, data, tmp_path / family)
    is_dense = family.startswith("mlp")
    assert (Role.BACKBONE in built.manifest.files) is not is_dense
    assert {"onnxruntime", *(["numpy"] if is_dense else [])} <= set(built.manifest.verified_on)
    assert built.manifest.costs.train_peak_bytes > 4 * built.manifest.layout.size


def test_what_trains_can_be_chosen_and_the_rest_joins_the_backbone(bundle, tmp_path):
    head = build(replace(RECIPE, trains="head", pretraining=None), TASK, DATA, tmp_path / "head")
    assert [slot.name for slot in head.manifest.layout.slots] == ["tail2.weight", "tail2.bias"]
    assert head.manifest.features.shape == (48,)
    assert head.manifest.provenance["trains"] == "head"
    assert bundle.manifest.features.shape == (64,)


def test_a_budget_chooses_the_most_that_fits(tmp_path):
    wide = Budget(memory_bytes=100_000_000, milliseconds=1000.0, profile="pi-4")
    narrow = Budget(memory_bytes=400_000, milliseconds=1000.0, profile="pi-4")
    sizes = [
        build(replace(RECIPE, budget=budget, pretraining=None), TASK, DATA, tmp_path / name).manifest.layout.size
        for name, budget in (("wide", wide), ("narrow", narrow))
    ]
    assert sizes[0] > sizes[1]


def test_a_cnn_whose_every_layer_trains_has_no_backbone(tmp_path):
    whole = replace(RECIPE, trains="everything", pretraining=None)
    built = build(whole, TASK, DATA, tmp_path / "whole")
    assert built.manifest.features is None
    assert "onnxruntime" in built.manifest.verified_on
    assert {slot.name.split(".")[0] for slot in built.manifest.layout.slots} >= {"conv1", "conv2", "tail2"}


def test_extra_graphs_are_made_where_they_are_asked_for(bundle, tmp_path):
    asked = replace(RECIPE, private=True, int8_tail=True, licence="Apache-2.0")
    built = build(asked, TASK, DATA, tmp_path / "asked")
    assert {Role.TRAIN_STEP_PRIVATE.value, Role.TAIL_INT8.value} <= built.manifest.files.keys()
    assert built.manifest.licence == "Apache-2.0"
    assert Role.TAIL_INT8.value not in bundle.manifest.files


def test_weights_decay_where_a_recipe_says_so(tmp_path):
    def after_a_step(recipe, name):
        model = build(replace(recipe, pretraining=None, tflite="none"), TASK, DATA, tmp_path / name).open("onnxruntime")
        zeros = np.zeros(4, np.float32)
        idle = Batch(np.zeros((4, 64), np.uint8), np.zeros(4, np.int64), np.ones((4, 3), np.float32) / 3, zeros, zeros)
        before = model.train_session.state.theta
        model.train_session.run(idle, learning_rate=0.1, temperature=1.0)
        return np.abs(model.train_session.state.theta).sum() / np.abs(before).sum()

    assert after_a_step(RECIPE, "plain") == pytest.approx(1.0)
    assert after_a_step(replace(RECIPE, weight_decay=0.1), "decaying") == pytest.approx(0.99)


@pytest.mark.parametrize("trains", ["tail", "last 2"])
def test_a_manifest_counts_the_memory_of_weight_decay(tmp_path, trains):
    recipe = replace(RECIPE, pretraining=None, tflite="none", weight_decay=0.1, trains=trains)
    built = build(recipe, TASK, DATA, tmp_path / "decaying")
    step = onnx.load_from_string(built.read(Role.TRAIN_STEP))
    assert built.manifest.costs.train_peak_bytes == liveness.plan(step, recipe.batch_rows).peak_bytes


def test_a_head_that_answers_nothing_but_zeros_is_proven_too(tmp_path):
    forward = build_family("mlp-s", TASK.sample_shape, 3, seed=0)
    for initializer in forward.model.graph.initializer:
        content = np.zeros(tuple(initializer.dims), np.float32)
        initializer.CopyFrom(onnx.numpy_helper.from_array(content, initializer.name))
    built = build(Recipe("zero"), TASK, DATA, tmp_path / "zero", model=forward)
    assert {"onnxruntime", "litert", "numpy"} <= set(built.manifest.verified_on)


def test_a_runtime_that_is_required_must_be_proven(tmp_path, monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "no-python"))
    with pytest.raises(InterpreterError, match="no Python for tflite-runtime"):
        build(replace(RECIPE, tflite="required", pretraining=None), TASK, DATA, tmp_path / "required")
    assert not (tmp_path / "required" / "manifest.json").exists()


def test_a_runtime_that_falls_out_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "no-python"))
    built = build(replace(RECIPE, pretraining=None), TASK, DATA, tmp_path / "possible")
    assert "tflite-runtime" not in built.manifest.verified_on
    assert "not proven on tflite-runtime" in caplog.text


def test_a_release_names_its_parent_which_must_be_of_the_same_task(bundle, tmp_path):
    child = replace(RECIPE, parent=bundle.folder, version="2", pretraining=None)
    assert build(child, TASK, DATA, tmp_path / "child").manifest.parent == bundle.digest.hex()
    other = Task(("a", "b", "c"), (1, 8, 8), "uint8")
    with pytest.raises(InvalidValueError, match="another task"):
        build(child, other, DATA, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "changes",
    [{"trains": "the middle"}, {"trains": "head", "budget": Budget(10**8, 1.0, "pi-4")}, {"batch_rows": 0}],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes):
    with pytest.raises(InvalidValueError):
        replace(RECIPE, **changes)


def test_a_bundle_is_made_from_one_model(tmp_path):
    forward = build_family("cnn-s", TASK.sample_shape, 3, seed=5)
    own = build(Recipe("own"), TASK, DATA, tmp_path / "own", model=forward)
    assert own.manifest.family == "own"
    np.testing.assert_array_equal(
        np.frombuffer(own.read(Role.THETA), "<f4"), theta_of(forward.model, own.manifest.layout)
    )
    onnx.save(forward.model, tmp_path / "own.onnx")
    file = build(Recipe("own", model=tmp_path / "own.onnx"), TASK, DATA, tmp_path / "file")
    assert file.manifest.provenance["model_sha256"] == sha256((tmp_path / "own.onnx").read_bytes()).hex()
    for recipe, model in ((Recipe("none"), None), (Recipe("two", model=tmp_path / "own.onnx"), forward)):
        with pytest.raises(InvalidValueError, match="one thing"):
            build(recipe, TASK, DATA, tmp_path / "refused", model=model)


def test_a_model_of_ones_own_must_fit_the_task(tmp_path):
    for shape, classes in (((1, 8, 8), 4), ((1, 9, 8), 3)):
        with pytest.raises(InvalidValueError, match="the model"):
            build(Recipe("own"), TASK, DATA, tmp_path / "x", model=build_family("cnn-s", shape, classes, seed=5))


def test_views_change_what_the_factory_learns(bundle):
    views = replace(RECIPE, augmentation=Augmentation(rotation_degrees=0, shear=0, scale=0, shift_pixels=2))
    seen = theta_of(factory_model(views, TASK, DATA).model, bundle.manifest.layout)
    assert not np.array_equal(seen, np.frombuffer(bundle.read(Role.THETA), "<f4"))


def test_too_few_calibration_samples_are_refused():
    with pytest.raises(InvalidValueError, match="calibration"):
        FactoryData(DATA.samples, DATA.labels, DATA.calibration[:3])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "../elsewhere"}, "name '../elsewhere'"),
        ({"name": "/tmp/elsewhere"}, "name"),
        ({"family": "../cnn"}, "family"),
        ({"version": "a b"}, "version"),
        ({"licence": "Apache License 2.0"}, "SPDX"),
        ({"seed": -1}, "seed"),
        ({"batch_rows": 100_000_000}, "batch_rows"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"logits": "scores"}, "`logits` names a tensor of `model`"),
    ],
)
def test_a_recipe_that_cannot_be_made_does_not_exist(changes, complaint):
    with pytest.raises(InvalidValueError, match=complaint):
        replace(RECIPE, **changes)


@pytest.mark.parametrize("terms", [{"learning_rate": -0.1}, {"epochs": 0}, {"batch_rows": 0}, {"weight_decay": -1.0}])
def test_terms_of_pretraining_lie_in_their_ranges(terms):
    with pytest.raises(InvalidValueError, match=next(iter(terms)).split("_")[0].removesuffix("s")):
        PretrainTerms(**terms)


@pytest.mark.parametrize(
    "expression", ["MIT", "(MIT OR GPL-2.0+ WITH Classpath-exception-2.0) AND CC0-1.0", "LicenseRef-our-terms"]
)
def test_a_licence_is_an_spdx_expression(expression):
    assert replace(RECIPE, licence=expression).licence == expression


@pytest.mark.parametrize("text", ["", "MIT OR", "AND", "MIT Apache-2.0", "(MIT", "MIT)", "#", "no licence, sorry"])
def test_prose_is_no_licence(text):
    with pytest.raises(InvalidValueError, match="SPDX"):
        replace(RECIPE, licence=text)


def test_a_tolerance_is_about_accuracy_where_there_are_labelled_rows(tmp_path):
    """Labels that the float model always misses: int8 may change any answer and loses no accuracy."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8), dtype=np.uint8)
    strict = QuantisationTerms(tolerance=0.0, reduce_range=True)
    recipe = replace(RECIPE, pretraining=None, seed=3, quantisation=strict, tflite="none")
    answers = run(factory_model(recipe, TASK, DATA).model, preprocessed(noise, TASK)).argmax(1)
    missed = FactoryData(noise, (answers + 1).astype(np.int64) % 3, noise)
    in_int8 = build(recipe, TASK, missed, tmp_path / "missed")
    assert "float_layers" not in in_int8.manifest.provenance
    some_float = build(recipe, TASK, FactoryData.unlabelled(noise), tmp_path / "unlabelled")
    assert some_float.manifest.provenance["float_layers"] == "conv2/Conv embed/Gemm"


def test_labelled_rows_are_taken_from_the_first_to_the_last():
    recipe = replace(RECIPE, quantisation=QuantisationTerms(calibration_rows=10))
    rows = rows_of(recipe, TASK, DATA)
    assert (len(rows.calibration), len(rows.judged)) == (10, 10)
    assert rows.labels.tolist() == [DATA.labels[round(place)] for place in np.linspace(0, 89, 10) // 1]
    bare = rows_of(recipe, TASK, FactoryData.unlabelled(DATA.calibration))
    assert (bare.judged is bare.calibration, bare.labels) == (True, None)


def test_a_model_is_not_trained_again_on_nothing():
    with pytest.raises(InvalidValueError, match="`retrains` needs labelled samples"):
        factory_model(replace(RECIPE, retrains=True), TASK, FactoryData.unlabelled(DATA.calibration))
