"""Trainings that are cut short, and trainings on changed rows: the worker's side without privacy terms."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.jobs import RefreshJob
from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Checkpoint, Progress
from edge_agent.learning.learner import GUARD
from edge_agent.private.data import PrivateRows
from edge_agent.round.events import Refreshed, Task, Trained, Work, WorkDeferred, WorkFailed
from edge_agent.training.between import Between, DeferredError
from fd_protocol.manifest import Costs
from fd_runtime.fitting import FitTerms
from fd_runtime.models.model import OptimizerState
from tests.edge_agent.artifacts import CLASSES, LAYOUT, SIZE, clouds, write_bundle
from tests.edge_agent.builders import round_id
from tests.edge_agent.test_worker_core import PROBES, TERMS, Bench

LONG = replace(TERMS, epochs=20, warm_up_epochs=30)


class CutError(Exception):
    """Stands for a kill: nobody catches it."""


class Cut(Between):
    """Saves after every step, and cuts the training short after so many."""

    def __init__(self, steps, *, is_saving=True, error=CutError):
        super().__init__()
        self._left, self._is_saving, self._error = steps, is_saving, error

    def after_step(self, size_bytes, save):
        if not self._left:
            raise self._error() if self._error is CutError else self._error("heat")
        if self._is_saving:
            save()
        self._left -= 1


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def progress_path(bench):
    return bench.checkpoint.with_name("checkpoint.progress")


def cut(bench, job, steps, **options):
    with pytest.raises(CutError):
        bench.core(between=Cut(steps, **options)).handle(job)


def undisturbed(bench, job):
    """The checkpoint that the job comes to when nothing goes wrong, and back."""
    before = bench.checkpoint.read_bytes() if bench.checkpoint.exists() else None
    bench.core().handle(job)
    after = bench.checkpoint.read_bytes()
    bench.checkpoint.unlink() if before is None else bench.checkpoint.write_bytes(before)
    return after


@pytest.mark.parametrize("kind", ["warm-up", "train"])
@pytest.mark.parametrize("cuts", [[1], [30, 7], [17], [1, 2, 3, 4, 5]])
def test_a_training_cut_short_anywhere_ends_in_the_same_bits(bench, kind, cuts):
    job = replace(bench.warm_up(), terms=LONG) if kind == "warm-up" else bench.train(terms=LONG)
    whole = undisturbed(bench, job)
    for steps in cuts:
        cut(bench, job, steps)
        assert not bench.checkpoint.exists()
    saved = checkpoints.load_record(progress_path(bench), Progress)
    assert saved.done == sum(cuts)
    bench.core().handle(job)
    assert bench.checkpoint.read_bytes() == whole
    assert not progress_path(bench).exists()


def test_what_a_training_reports_does_not_tell_that_it_was_cut_short(bench):
    job = bench.train(terms=LONG)
    expected = Bench(bench.folder / "twin").core().handle(job).event
    cut(bench, job, 25)
    assert bench.core().handle(job).event == expected


def test_the_model_says_what_it_said_before_until_a_training_is_over(bench):
    inputs = np.ones((1, SIZE), np.float32)
    before = bench.core().logits(inputs)
    cut(bench, bench.train(terms=LONG), 20)
    np.testing.assert_array_equal(bench.core().logits(inputs), before)


@pytest.mark.parametrize("other", ["consensus", "terms", "rows", "start"])
def test_progress_of_another_training_is_not_gone_on_with(bench, other):
    cut(bench, bench.train(terms=LONG), 25)
    job = bench.train(terms=LONG)
    if other == "consensus":
        job = bench.train(labels=(bench.truth() + 1) % 3, terms=LONG)
    elif other == "terms":
        job = bench.train(terms=replace(LONG, epochs=21))
    elif other == "rows":
        bench.private = PrivateRows(*clouds(110, seed=4))
    else:
        bench.core().handle(bench.warm_up())  # keeps, and so forgets the progress; put it back
        progress = progress_path(bench)
        assert not progress.exists()
        cut_elsewhere = Bench(bench.folder / "elsewhere")
        cut(cut_elsewhere, cut_elsewhere.train(terms=LONG), 25)
        progress.write_bytes(progress_path(cut_elsewhere).read_bytes())
    kept = progress_path(bench).read_bytes()
    progress_path(bench).unlink()
    expected = undisturbed(bench, job)
    progress_path(bench).write_bytes(kept)
    bench.core().handle(job)
    assert bench.checkpoint.read_bytes() == expected


def test_damaged_progress_costs_what_was_done_and_no_more(bench):
    job = bench.train(terms=LONG)
    whole = undisturbed(bench, job)
    cut(bench, job, 25)
    intact = progress_path(bench).read_bytes()
    flipped = bytearray(intact)
    flipped[-100] ^= 1
    for damaged in (intact[:-1], intact[:10], b"", bytes(flipped)):
        progress_path(bench).write_bytes(damaged)
        bench.checkpoint.unlink(missing_ok=True)
        bench.core().handle(job)
        assert bench.checkpoint.read_bytes() == whole


def test_progress_that_cannot_be_written_fails_the_attempt_and_not_the_model(bench):
    bench.checkpoint = bench.folder / "no such folder" / "checkpoint"
    answer = bench.core(between=Cut(5)).handle(bench.train(terms=LONG))
    assert isinstance(answer.event, WorkFailed)


def test_a_training_that_diverges_leaves_no_progress_to_diverge_from_again(bench):
    job = bench.train(terms=replace(LONG, learning_rate=10.0, epochs=50))
    answer = bench.core(between=Cut(10**6)).handle(job)
    assert "diverged" in answer.event.reason
    assert not progress_path(bench).exists()


def test_a_training_that_the_machine_holds_up_says_so_and_goes_on_where_it_was(bench):
    job = bench.train(terms=LONG)
    whole = undisturbed(bench, job)
    held = bench.core(between=Cut(9, error=DeferredError))
    assert held.handle(job).event == WorkDeferred(job.work, "heat")
    answered = held.handle(bench.predict())
    assert answered.blobs, "and rounds are answered meanwhile"
    assert bench.core().handle(job).event.accepted
    assert bench.checkpoint.read_bytes() == whole


def test_a_record_comes_back_as_it_was_written(tmp_path):
    state = OptimizerState(np.arange(5, dtype=np.float32), {"velocity": np.ones(5, np.float32)}, 7)
    progress = Progress.of(b"w" * 32, 3, state, [0.1, 1 / 3, 2e-308])
    checkpoints.save(tmp_path / "record", progress)
    found = checkpoints.load_record(tmp_path / "record", Progress)
    assert found.loss_of_each_step() == (0.1, 1 / 3, 2e-308)
    assert found.state().theta.tobytes() == state.theta.tobytes()
    kept = Checkpoint.of(b"b" * 32, state, charge="ab", refreshed=Refreshed(4, accepted=True))
    checkpoints.save(tmp_path / "record", kept)
    assert checkpoints.load(tmp_path / "record") == kept


# Changed rows.


def refresh(bench, private_epoch=1, consensus=None):
    digest, messages = consensus or (b"", ())
    return RefreshJob(Work(Task.REFRESH, round_id()), private_epoch, TERMS, digest, messages)


def accuracy_on(core, classes):
    samples, labels = clouds(500, seed=77, classes=classes)
    return (core.logits(samples.astype(np.float32) / 255).argmax(axis=1) == labels).mean()


def test_changed_rows_are_learned_together_with_the_last_consensus(tmp_path):
    reached = []
    for name in ("jointly", "alone"):
        bench = Bench(tmp_path / name, rows=150, classes=[0])
        core = bench.core()
        core.handle(bench.warm_up())
        consensus = bench.consensus(bench.truth()) if name == "jointly" else None
        core.renew(PrivateRows(*clouds(150, seed=8, classes=[1])))
        answer = core.handle(replace(refresh(bench, 3, consensus), terms=replace(LONG, probe_weight=2.0)))
        assert (answer.event.private_epoch, answer.event.accepted) == (3, True)
        assert accuracy_on(core, [1]) > 0.9
        reached.append(accuracy_on(core, range(CLASSES)))
    assert reached[0] > reached[1] + 0.2, "what the federation taught is not forgotten"


def test_changed_rows_are_learned_without_a_consensus_too(tmp_path):
    bench = Bench(tmp_path, rows=150, classes=[0])
    core = bench.core()
    core.handle(bench.warm_up())
    core.renew(PrivateRows(*clouds(150, seed=8, classes=[2])))
    core.handle(replace(refresh(bench), terms=LONG))
    assert accuracy_on(core, [2]) > 0.9


def test_changed_rows_are_learned_once_and_a_restart_knows(bench):
    first = bench.core().handle(refresh(bench, 5))
    kept = bench.checkpoint.read_bytes()
    assert bench.core().handle(refresh(bench, 5)) == first
    assert bench.checkpoint.read_bytes() == kept
    assert bench.core().handle(refresh(bench, 6)).event.private_epoch == 6
    assert bench.checkpoint.read_bytes() != kept


def test_learning_changed_rows_does_not_forget_which_consensus_was_learned(bench):
    trained = bench.core().handle(bench.train()).event
    bench.core().handle(refresh(bench, 5))
    assert bench.core().handle(bench.train()).event == trained
    assert isinstance(trained, Trained)


def test_changed_rows_cut_short_end_in_the_same_bits(bench):
    job = refresh(bench, 5, bench.consensus(bench.truth()))
    whole = undisturbed(bench, job)
    cut(bench, job, 5)
    bench.core().handle(job)
    assert bench.checkpoint.read_bytes() == whole


def test_without_rows_there_is_nothing_to_learn(bench):
    core = bench.core()
    core.renew(PrivateRows(np.zeros((0, SIZE), np.uint8), np.zeros(0, np.int64)))
    assert core.handle(refresh(bench, 5)).event == Refreshed(5, accepted=True)
    assert not bench.checkpoint.exists()


def test_changed_rows_that_spoil_the_model_are_put_back(bench):
    core = bench.core()
    core.handle(bench.train(terms=replace(TERMS, epochs=100)))
    theta = np.frombuffer(checkpoints.load(bench.checkpoint).theta, "<f4")
    write_bundle(bench.folder / "bundle", theta)
    bench.checkpoint.unlink()
    core = bench.core()
    before = core.logits(np.ones((1, SIZE), np.float32))
    samples, labels = clouds(300, seed=8)
    is_held_out = PrivateRows(samples, labels).split()[1]
    core.renew(PrivateRows(samples, np.where(is_held_out, labels, (labels + 1) % 3)))
    event = core.handle(replace(refresh(bench), terms=replace(LONG, epochs=100))).event
    assert not event.accepted
    np.testing.assert_array_equal(core.logits(np.ones((1, SIZE), np.float32)), before)


def test_the_guard_looks_at_the_release_with_the_rows_of_today(bench):
    """With rows on which the release is no good any more, weights that are no better than it are not put back."""
    core = bench.core()
    samples, _ = clouds(300, seed=8)
    core.renew(PrivateRows(samples, np.random.default_rng(0).integers(0, 3, 300)))
    trained = core.handle(bench.train()).event
    assert trained.reason != GUARD
    assert trained.metrics["release_accuracy"] < 0.7


# Memory.


def test_a_bound_on_memory_makes_steps_of_fewer_rows(bench):
    fixed = 4 * LAYOUT.size * 10 + len(b"not read by numpy either")
    write_bundle(bench.folder / "bundle", costs=Costs(1, 1, fixed + 64 * 1000))
    free = bench.core().handle(bench.train()).event
    bench.checkpoint.unlink()
    bound = bench.core(memory_mb=(fixed + 16 * 1000 + 10) / 1e6).handle(bench.train()).event
    rows = 108 + PROBES
    assert FitTerms().batch_rows == 64
    assert free.metrics["steps"] == TERMS.epochs * np.ceil(rows / 64)
    assert bound.metrics["steps"] == TERMS.epochs * np.ceil(rows / 16)
    assert bound.accepted
