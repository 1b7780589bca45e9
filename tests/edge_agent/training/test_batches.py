"""A step has no more rows than its bundle was made for, on every runtime that the bundle was proven on."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_agent.learning.learner import Learner, PrivateFeatures
from edge_agent.privacy.learner import PrivateLearner
from edge_agent.training.memory import batch_within
from fd_protocol.manifest import Preprocessing, Role, Task
from fd_protocol.terms import TrainingTerms
from fd_runtime.artifacts import Bundle
from fd_runtime.fitting import LabelledRows, ProbeRows
from fd_runtime.space import preprocessed
from model_export import FactoryData, Recipe, build
from model_export.planning import liveness

PICTURES = Task(("a", "b", "c"), (1, 12, 12), "uint8", Preprocessing(1 / 255))
ROWS = 100
TERMS = TrainingTerms(epochs=1, warm_up_epochs=1)
RUNTIMES = ["onnxruntime", "litert"]


def samples(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (rows, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module", params=[16, 4])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    recipe = Recipe("pictures", "cnn-s", pretraining=None, batch_rows=request.param)
    folder = tmp_path_factory.mktemp("bundles") / "pictures"
    return build(recipe, PICTURES, FactoryData.unlabelled(samples(40)), folder)


def opened(bundle: Bundle, runtime: str):
    """The model, the features of its rows, and a list that each step adds its number of rows to."""
    model, taken = bundle.open(runtime), []
    run = model.train_session.run

    def counted(batch, **terms):
        taken.append(len(batch.labels))
        return run(batch, **terms)

    model.train_session.run = counted
    return model, model.features(preprocessed(samples(ROWS), PICTURES)), taken


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_device_trains_in_batches_of_its_bundle(bundle: Bundle, runtime: str) -> None:
    model, features, taken = opened(bundle, runtime)
    own = LabelledRows(features, np.arange(ROWS) % 3, 3)
    nothing = LabelledRows(features[:0], np.zeros(0, np.int64), 3)
    Learner(model, bundle.digest, PrivateFeatures(own, nothing), None, seed=b"").warm_up(TERMS)
    assert sum(taken) == ROWS
    assert max(taken) <= bundle.manifest.training.batch


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_under_privacy_terms_a_consensus_is_learned_in_batches_of_the_bundle(bundle: Bundle, runtime: str) -> None:
    model, features, taken = opened(bundle, runtime)
    nothing = LabelledRows(features[:0], np.zeros(0, np.int64), 3)
    probes = ProbeRows(features, np.full((ROWS, 3), 1 / 3, np.float32), np.ones(ROWS, np.float32))
    fresh = model.train_session.state
    PrivateLearner(model, bundle.digest, fresh, nothing, None, purse=None, seed=b"").train(
        b"c" * 32, probes, 2.0, TERMS
    )
    assert sum(taken) == ROWS
    assert max(taken) <= bundle.manifest.training.batch


def test_a_bundle_of_few_rows_is_proven_where_its_graphs_run(bundle: Bundle) -> None:
    assert {"onnxruntime", "litert"} <= set(bundle.manifest.verified_on)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("family", "trains"), [("cnn-m", "tail"), ("cnn-m", "last 3"), ("mlp-m", "everything"), ("dw-s", "last 3")]
)
def test_a_step_of_fewer_rows_keeps_to_the_bound(tmp_path: Path, family: str, trains: str, optimizer: str) -> None:
    """Whatever bound lies between the memory of one row and that of the batch."""
    recipe = Recipe("pictures", family, pretraining=None, trains=trains, optimizer=optimizer, tflite="none")
    bundle = build(recipe, PICTURES, FactoryData.unlabelled(samples(40)), tmp_path / "pictures")
    step = onnx.load_from_string(bundle.read(Role.TRAIN_STEP))
    peaks = {rows: liveness.plan(step, rows).peak_bytes for rows in (1, 2, 5, 16, 31, 48, 63, 64)}
    assert batch_within(bundle.manifest, peaks[64] / 1e6) == 64
    for rows, peak in peaks.items():
        assert batch_within(bundle.manifest, peak / 1e6) <= rows


def test_a_bound_that_not_even_one_row_fits_is_told(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    assert batch_within(bundle.manifest, 0.001) == 1
    assert "a train step may take more than memory_mb = 0.001" in caplog.text


def test_a_large_batch_of_a_bundle_does_not_make_steps_larger(tmp_path: Path) -> None:
    recipe = Recipe("pictures", "cnn-s", pretraining=None, batch_rows=128, tflite="none")
    bundle = build(recipe, PICTURES, FactoryData.unlabelled(samples(40)), tmp_path / "pictures")
    model, features, taken = opened(bundle, "onnxruntime")
    own = LabelledRows(features, np.arange(ROWS) % 3, 3)
    nothing = LabelledRows(features[:0], np.zeros(0, np.int64), 3)
    Learner(model, bundle.digest, PrivateFeatures(own, nothing), None, seed=b"").warm_up(TERMS)
    assert taken == [50, 50]
