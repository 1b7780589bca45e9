"""The student learns a consensus on its bundle's own train step."""

import numpy as np
import pytest

from broker_server.consensus import to_blocks
from broker_server.student import Student, StudentTerms, StudentWeights
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Codec, Slice
from fd_protocol.payload import quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.broker_server import builders
from tests.broker_server.artifacts import TASK, three_kinds

PROBES = 60


@pytest.fixture(scope="module")
def samples():
    return three_kinds(PROBES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("student") / "bundle"
    return build(Recipe("s", "mlp-s", trains="everything"), TASK, FactoryData(*samples, samples[0]), folder)


def student(bundle, samples, runtime="onnxruntime", canaries=30):
    inputs = preprocessed(samples[0], TASK)
    known = LabelledProbes(tuple(range(canaries)), tuple(samples[1][:canaries].tolist()))
    model = bundle.open(runtime)
    return Student(model, bundle.digest, inputs, StudentTerms(epochs=20, learning_rate=0.02), known)


@pytest.fixture
def consensus(samples):
    rows = (0.05 + 0.85 * np.eye(3, dtype=np.float32))[samples[1]]
    codes = quantise(SoftLabels(rows, 2.0), Codec.U8_SQRT)
    return to_blocks(codes, builders.offer(slice=Slice(builders.PUBLIC_SET, 0, PROBES, 3)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "numpy"])
def test_a_student_learns_what_the_consensus_says(bundle, samples, consensus, runtime):
    lesson = student(bundle, samples, runtime).learn(consensus, None)
    assert lesson.metrics["accuracy"] > 0.95
    assert lesson.metrics["loss"] > 0


def test_it_goes_on_from_its_weights(bundle, samples, consensus):
    pupil = student(bundle, samples)
    first = pupil.learn(consensus, None)
    second = pupil.learn(consensus, first.weights)
    assert second.metrics["loss"] < first.metrics["loss"]
    assert StudentWeights.from_bytes(second.weights).step == 2 * StudentWeights.from_bytes(first.weights).step


def test_a_lesson_that_is_repeated_after_a_crash_is_the_same(bundle, samples, consensus):
    once, again = (student(bundle, samples).learn(consensus, None).weights for _ in range(2))
    assert once == again


def test_weights_of_another_bundle_are_of_no_use(bundle, samples, consensus):
    pupil = student(bundle, samples)
    fresh = pupil.learn(consensus, None)
    known = StudentWeights.from_bytes(fresh.weights)
    foreign = StudentWeights(b"f" * 32, known.theta, known.slots, known.step).to_bytes()
    assert pupil.learn(consensus, foreign).weights == fresh.weights


def test_without_canaries_there_is_no_accuracy(bundle, samples, consensus):
    assert set(student(bundle, samples, canaries=0).learn(consensus, None).metrics) == {"loss"}


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"batch_rows": 0}])
def test_terms_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        StudentTerms(**wrong)
