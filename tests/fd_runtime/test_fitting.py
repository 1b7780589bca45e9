"""The epoch loop: what a fit promises whatever the runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.fitting import FitProgress, FitTerms, LabelledRows, ProbeRows, TrainingDivergedError, fit
from fd_runtime.models.model import Batch, OptimizerState, TrainSession
from fd_runtime.models.numpy_model import DenseChain, NumpyTrainSession
from fd_runtime.models.onnx_model import OnnxTrainSession
from tests.support.dense_tails import SCALE, ZERO_POINT, DenseTail, dense_tail

CLASSES = 10


@pytest.fixture(scope="module")
def tail() -> DenseTail:
    return dense_tail(16, 24, CLASSES)


@pytest.fixture(params=["onnxruntime", "numpy"])
def session(tail: DenseTail, request: pytest.FixtureRequest) -> TrainSession:
    if request.param == "numpy":
        return NumpyTrainSession(DenseChain(tail.step.layout, SCALE, ZERO_POINT), tail.fresh)
    return OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cluster_features(labels: np.ndarray, seed: int) -> np.ndarray:
    """uint8 [n, 16], one random centre for each class."""
    centres = rng(99).integers(40, 216, (CLASSES, 16))
    return (centres[labels] + rng(seed).integers(-30, 31, (len(labels), 16))).astype(np.uint8)


def private_rows(count: int = 90, classes: range = range(5)) -> LabelledRows:
    labels = rng(1).choice(list(classes), count)
    return LabelledRows(cluster_features(labels, 2), labels, CLASSES)


def probe_rows(count: int = 200) -> tuple[ProbeRows, np.ndarray]:
    """Probes of all classes with confident targets, and their labels."""
    labels = rng(3).integers(0, CLASSES, count)
    targets = np.full((count, CLASSES), 0.1 / (CLASSES - 1), np.float32)
    targets[np.arange(count), labels] = 0.9
    return ProbeRows(cluster_features(labels, 4), targets), labels


def accuracy(session: TrainSession, features: np.ndarray, labels: np.ndarray, tail: DenseTail) -> float:
    chain = DenseChain(tail.step.layout, SCALE, ZERO_POINT)
    return float((chain.activations(session.state.theta, features)[-1].argmax(axis=1) == labels).mean())


@dataclass
class Recorder:
    """A session that notes what it is given and never moves."""

    state: OptimizerState = field(default_factory=lambda: OptimizerState.fresh(np.ones(3, np.float32), ()))
    batches: list[Batch] = field(default_factory=list)
    terms: list[dict[str, object]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def run(self, batch: Batch, **terms: object) -> float:
        self.batches.append(batch)
        self.terms.append(terms)
        self.state = OptimizerState(self.state.theta + 1, {}, self.state.step + 1)
        return self.losses.pop(0) if self.losses else 1.0


def test_private_rows_and_probes_are_learned_at_once(session: TrainSession, tail: DenseTail) -> None:
    probes, probe_labels = probe_rows()
    private = private_rows()
    report = fit(session, private, probes, FitTerms(epochs=15, learning_rate=1e-2), rng())
    assert report.epoch_losses[-1] < 0.5 * report.epoch_losses[0]
    assert accuracy(session, private.features, private.labels, tail) > 0.95
    assert accuracy(session, probes.features, probe_labels, tail) > 0.9


def test_probes_teach_what_private_rows_cannot(session: TrainSession, tail: DenseTail) -> None:
    probes, probe_labels = probe_rows()
    terms = FitTerms(epochs=15, learning_rate=1e-2)
    fit(session, private_rows(), None, terms, rng())
    assert accuracy(session, probes.features, probe_labels, tail) < 0.7
    fit(session, None, probes, terms, rng())
    assert accuracy(session, probes.features, probe_labels, tail) > 0.9


def test_the_same_generator_gives_the_same_theta(session: TrainSession, tail: DenseTail) -> None:
    thetas = []
    for seed in (1, 1, 2):
        session.state = tail.fresh
        fit(session, private_rows(), probe_rows()[0], FitTerms(epochs=2), rng(seed))
        thetas.append(session.state.theta)
    assert (thetas[0] == thetas[1]).all()
    assert (thetas[0] != thetas[2]).any()


def test_every_row_comes_once_an_epoch_in_even_batches() -> None:
    recorder = Recorder()
    private = LabelledRows(np.arange(70, dtype=np.float32)[:, None], np.zeros(70, np.int64), CLASSES)
    probes = ProbeRows(np.arange(70, 131, dtype=np.float32)[:, None], np.full((61, CLASSES), 0.1, np.float32))
    report = fit(recorder, private, probes, FitTerms(epochs=2, batch_rows=64, probe_weight=0.25), rng())
    assert [len(b.features) for b in recorder.batches] == [43, 44, 44] * 2
    for epoch in (recorder.batches[:3], recorder.batches[3:]):
        assert sorted(np.concatenate([b.features for b in epoch]).ravel().tolist()) == list(range(131))
    for b in recorder.batches:
        is_private = b.features.ravel() < 70
        assert (b.alpha == is_private).all()
        assert (b.weight == np.where(is_private, 1, 0.25)).all()
    assert (report.steps, report.is_complete, len(report.epoch_losses)) == (6, True, 2)


def test_probe_weights_multiply() -> None:
    recorder = Recorder()
    weight = np.array([0, 2], np.float32)
    probes = ProbeRows(np.zeros((2, 1), np.float32), np.full((2, CLASSES), 0.1, np.float32), weight)
    fit(recorder, None, probes, FitTerms(probe_weight=0.5), rng())
    assert sorted(recorder.batches[0].weight.tolist()) == [0.0, 1.0]


def test_the_proximal_term_pulls_to_where_the_fit_began() -> None:
    recorder = Recorder()
    fit(recorder, private_rows(), None, FitTerms(epochs=2, prox=0.1, max_norm=3.0), rng())
    assert all((terms["reference"] == 1).all() for terms in recorder.terms)
    assert {(terms["prox"], terms["max_norm"]) for terms in recorder.terms} == {(0.1, 3.0)}


def test_a_fit_stops_when_told_and_keeps_what_it_learned() -> None:
    recorder, seen = Recorder(), []

    def after_three_steps(progress: FitProgress) -> bool:
        seen.append(progress)
        return progress.steps == 3

    report = fit(
        recorder, private_rows(), None, FitTerms(epochs=5, batch_rows=45), rng(), should_stop=after_three_steps
    )
    assert (report.steps, report.is_complete, report.epoch_losses) == (3, False, (1.0, 1.0))
    assert [(p.steps, p.total_steps) for p in seen] == [(1, 10), (2, 10), (3, 10)]
    assert recorder.state.step == 3


@pytest.mark.parametrize(
    ("losses", "at"),
    [([np.nan], 1), ([np.inf], 1), ([1.0, 1.0, np.nan], 3), ([1.0, 1.0, 47.0], 3)],
    ids=["nan at once", "infinite at once", "nan", "explosion"],
)
def test_a_fit_that_diverges_says_so_and_puts_the_state_back(losses: list[float], at: int) -> None:
    recorder = Recorder(losses=losses)
    begin = recorder.state
    with pytest.raises(TrainingDivergedError) as diverged:
        fit(recorder, private_rows(), None, FitTerms(epochs=5, batch_rows=30), rng())
    assert diverged.value.step == at
    assert recorder.state is begin


def test_a_large_first_loss_is_a_bad_start_and_no_explosion() -> None:
    report = fit(Recorder(losses=[1000.0, 1500.0]), private_rows(), None, FitTerms(batch_rows=45), rng())
    assert report.is_complete


def test_a_real_explosion_is_caught(session: TrainSession, tail: DenseTail) -> None:
    with pytest.raises(TrainingDivergedError):
        fit(session, private_rows(), None, FitTerms(epochs=20, learning_rate=1e4), rng())
    assert (session.state.theta == tail.theta).all()


def test_a_theta_that_ends_infinite_is_caught() -> None:
    recorder = Recorder(OptimizerState.fresh(np.full(3, np.inf, np.float32), ()))
    with pytest.raises(TrainingDivergedError):
        fit(recorder, private_rows(), None, FitTerms(), rng())


def test_no_epochs_change_nothing(session: TrainSession, tail: DenseTail) -> None:
    report = fit(session, private_rows(), None, FitTerms(epochs=0), rng())
    assert (report.steps, report.epoch_losses, report.is_complete) == (0, (), True)
    assert (session.state.theta == tail.theta).all()


def test_rows_that_do_not_fit_together_are_refused(session: TrainSession) -> None:
    probes, _ = probe_rows()
    as_float = ProbeRows(probes.features.astype(np.float32), probes.targets)
    for private, public in ((None, None), (private_rows(), as_float), (private_rows(0), None)):
        with pytest.raises(InvalidValueError):
            fit(session, private, public, FitTerms(), rng())


@pytest.mark.parametrize("labels", [[0, 10], [-1, 0], [0]], ids=["too high", "negative", "too few"])
def test_labels_outside_the_classes_are_refused(labels: list[int]) -> None:
    with pytest.raises(InvalidValueError):
        LabelledRows(np.zeros((2, 3), np.float32), np.array(labels), CLASSES)


@pytest.mark.parametrize("field_name", ["batch_rows", "learning_rate", "temperature", "probe_weight", "prox", "epochs"])
def test_terms_out_of_range_are_refused(field_name: str) -> None:
    with pytest.raises(InvalidValueError):
        FitTerms(**{field_name: -1})


# Going on with a fit that was broken off.


@pytest.mark.parametrize("steps", [1, 4, 7, 11])
def test_a_fit_goes_on_to_the_same_theta_bit_for_bit(session: TrainSession, tail: DenseTail, steps: int) -> None:
    private, probes, terms = private_rows(), probe_rows()[0], FitTerms(epochs=3, prox=0.1)
    whole = fit(session, private, probes, terms, rng())
    theta, losses = session.state.theta.tobytes(), []

    def broken_off(progress: FitProgress) -> bool:
        losses[:] = progress.losses
        return progress.steps == steps

    session.state = tail.fresh
    fit(session, private, probes, terms, rng(), should_stop=broken_off)
    assert session.state.theta.tobytes() != theta
    rest = fit(session, private, probes, terms, rng(), reference=tail.theta, losses=losses)
    assert session.state.theta.tobytes() == theta
    assert rest == whole


def test_a_fit_that_goes_on_judges_an_explosion_by_the_first_loss_of_all() -> None:
    terms = FitTerms(epochs=2, batch_rows=45)
    fit(Recorder(losses=[47.0]), private_rows(), None, terms, rng(), losses=[3.0])
    with pytest.raises(TrainingDivergedError):
        fit(Recorder(losses=[47.0]), private_rows(), None, terms, rng(), losses=[1.0])


def test_a_fit_cannot_have_taken_more_steps_than_there_are() -> None:
    with pytest.raises(InvalidValueError, match="steps"):
        fit(Recorder(), private_rows(), None, FitTerms(batch_rows=45), rng(), losses=[1.0] * 3)


def test_a_fit_that_was_over_already_takes_no_step() -> None:
    recorder = Recorder()
    report = fit(recorder, private_rows(), None, FitTerms(batch_rows=45), rng(), losses=[1.0, 2.0])
    assert (recorder.batches, report.is_complete, report.epoch_losses) == ([], True, (1.5,))
