from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_agent.jobs import CompetenceJob, PredictJob, TrainJob, WarmUpJob
from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.learner import GUARD, Learner, PrivateFeatures
from edge_agent.learning.seen import SeenProbes
from edge_agent.private.data import PrivateRows, load_private_rows
from edge_agent.round.events import CompetenceMapped, Predicted, Task, Trained, WarmedUp, Work, WorkFailed
from edge_agent.training.between import Between, BrokenOffError
from edge_agent.worker_core import WorkerCore
from fd_protocol import codec
from fd_protocol.competence import FAR, decode_map
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, CompetenceMap, ConsensusBlock, Contribution, Slice, TrainingTerms
from fd_protocol.payload import Codes, decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.fitting import LabelledRows, ProbeRows
from fd_runtime.space import preprocessed
from tests.edge_agent.artifacts import CLASSES, SIZE, TASK, clouds, write_bundle, write_private, write_public_set
from tests.edge_agent.builders import offer, round_id

PROBES = 60
TERMS = TrainingTerms(epochs=4, learning_rate=2e-2, probe_weight=0.25, warm_up_epochs=20)


class Bench:
    """A device's folder, and cores that start in it one after the other, as after crashes."""

    def __init__(self, folder, rows=120, classes=range(CLASSES)):
        self.folder = folder
        write_bundle(folder / "bundle")
        self.public = load_public_set(write_public_set(folder / "public", PROBES))
        self.private = load_private_rows(write_private(folder / "x.npz", rows, classes), (SIZE,), CLASSES)
        self.checkpoint = folder / "checkpoint"

    def core(self, **options):
        model = load_bundle(self.folder / "bundle").open("numpy")
        return WorkerCore(
            model, SeenProbes(self.public, model), self.private, self.checkpoint, device="dev-1", **options
        )

    def offer(self, number=1, **changes):
        asked = offer(number, slice=Slice(self.public.digest, 0, PROBES, CLASSES), training=TERMS)
        return replace(asked, **changes)

    def warm_up(self):
        return WarmUpJob(Work(Task.WARM_UP, round_id()), TERMS)

    def predict(self, number=1, base=b"", base_codes=b"", **changes):
        return PredictJob(Work(Task.PREDICT, round_id(number)), self.offer(number, **changes), base, base_codes)

    def consensus(self, labels, number=1, blocks=2, temperature=2.0):
        """A consensus that is nearly sure of `labels` [PROBES]."""
        logits = np.eye(CLASSES, dtype=np.float32)[labels] * 6
        bounds = np.linspace(0, PROBES, blocks + 1).astype(int)
        bodies = [
            encode_body(quantise(SoftLabels.of(logits[start:stop], temperature), Codec.U8_SQRT))
            for start, stop in pairwise(bounds)
        ]
        digest = sha256(b"".join(bodies))
        return digest, tuple(
            codec.encode(
                ConsensusBlock(
                    round_id(number), digest, index, blocks,
                    Slice(self.public.digest, int(bounds[index]), int(bounds[index + 1] - bounds[index]), CLASSES),
                    temperature, Codec.U8_SQRT, body,
                )
            )
            for index, body in enumerate(bodies)
        )  # fmt: skip

    def train(self, labels=None, number=1, terms=TERMS):
        digest, messages = self.consensus(self.truth() if labels is None else labels, number)
        return TrainJob(Work(Task.TRAIN, round_id(number)), digest, messages, terms)

    def truth(self):
        """The classes of the probes: bright pairs are easy to see."""
        return self.public.probes().reshape(PROBES, CLASSES, 2).sum(axis=2).argmax(axis=1)

    def accuracy(self, core):
        samples, labels = clouds(500, seed=77)
        return (core.logits(preprocessed(samples, TASK)).argmax(axis=1) == labels).mean()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


# Warm-up.


def test_a_warm_up_learns_the_private_rows_and_happens_once(bench):
    core = bench.core()
    before = bench.accuracy(core)
    assert core.handle(replace(bench.warm_up(), private_epoch=7)).event == WarmedUp(private_epoch=7)
    warm = bench.checkpoint.read_bytes()
    assert bench.accuracy(core) > max(0.9, before)
    assert core.handle(bench.warm_up()).event == WarmedUp()
    assert bench.core().handle(bench.warm_up()).event == WarmedUp()
    assert bench.checkpoint.read_bytes() == warm


def test_without_private_rows_a_warm_up_changes_nothing(bench):
    bench.private = PrivateRows(np.zeros((0, SIZE), np.uint8), np.zeros(0, np.int64))
    core = bench.core()
    before = core.logits(np.ones((1, SIZE), np.float32))
    assert core.handle(bench.warm_up()).event == WarmedUp()
    np.testing.assert_array_equal(core.logits(np.ones((1, SIZE), np.float32)), before)


# Competence.


def map_of(bench):
    answer = bench.core().handle(CompetenceJob(Work(Task.MAP_COMPETENCE, round_id()), 4, bench.public.digest))
    (payload,) = answer.blobs
    assert answer.event == CompetenceMapped(bench.public.digest, 4, sha256(payload))
    message = codec.decode(payload, CompetenceMap)
    assert (message.public_set, message.count, message.private_epoch) == (bench.public.digest, PROBES, 4)
    return decode_map(message.body, PROBES)


def test_probes_of_a_class_that_the_device_has_are_nearer_than_others(tmp_path):
    bench = Bench(tmp_path, rows=60, classes=[1])
    codes, truth = map_of(bench), bench.truth()
    assert codes[truth == 1].mean() + 1 < codes[truth != 1].mean()


def test_with_too_few_rows_a_device_claims_to_stand_nowhere(tmp_path):
    assert (map_of(Bench(tmp_path, rows=19)) == FAR).all()


# Predictions.


def test_a_contribution_is_what_the_model_says_at_the_offered_temperature(bench):
    core = bench.core()
    answer = core.handle(bench.predict(temperature=3.0))
    payload, stored, full = answer.blobs
    submission = answer.event.submission
    assert answer.event == Predicted(round_id(), submission)
    assert [submission.payload, submission.codes, submission.full] == [sha256(blob) for blob in answer.blobs]
    message = codec.decode(payload, Contribution)
    assert (message.temperature, message.codec, message.base) == (3.0, Codec.U8_SQRT, b"")
    said = decode_body(message.body, message.codec, PROBES, CLASSES).probabilities()
    expected = SoftLabels.of(core.logits(preprocessed(bench.public.probes(), TASK)), 3.0).probabilities
    np.testing.assert_allclose(said, expected, atol=0.01)
    np.testing.assert_array_equal(Codes.from_bytes(stored).probabilities(), said)
    assert full == payload


def test_a_prediction_made_again_is_the_same_bytes(bench):
    assert bench.core().handle(bench.predict()) == bench.core().handle(bench.predict())


def test_a_base_makes_a_difference_of_the_same_codes(bench):
    core = bench.core()
    core.handle(bench.warm_up())
    first, stored, _ = core.handle(bench.predict(1)).blobs
    core.handle(bench.train(terms=replace(TERMS, epochs=1, learning_rate=1e-3)))
    payload, codes, full = core.handle(bench.predict(2, sha256(first), stored)).blobs
    message, whole = codec.decode(payload, Contribution), codec.decode(full, Contribution)
    assert (message.base, whole.base) == (sha256(first), b"")
    assert len(payload) < len(full)
    decoded = decode_body(message.body, message.codec, PROBES, CLASSES, base=Codes.from_bytes(stored))
    np.testing.assert_array_equal(decoded.array, Codes.from_bytes(codes).array)
    np.testing.assert_array_equal(decode_body(whole.body, whole.codec, PROBES, CLASSES).array, decoded.array)


def test_a_base_that_saves_nothing_is_left_out(bench):
    core = bench.core()
    core.handle(bench.train(terms=replace(TERMS, epochs=100)))
    noise = np.random.default_rng(0).dirichlet(np.ones(CLASSES), PROBES).astype(np.float32)
    unlike = quantise(SoftLabels(noise, 2.0), Codec.U8_SQRT).to_bytes()
    payload, _, full = core.handle(bench.predict(2, sha256(b"base"), unlike)).blobs
    assert payload == full


def test_a_slice_of_the_probes_is_labelled_alone(bench):
    part = Slice(bench.public.digest, 10, 5, CLASSES)
    payload, *_ = bench.core().handle(bench.predict(slice=part, codec=Codec.F16)).blobs
    whole, *_ = bench.core().handle(bench.predict(codec=Codec.F16)).blobs
    said = decode_body(codec.decode(payload, Contribution).body, Codec.F16, 5, CLASSES).array
    np.testing.assert_array_equal(
        said, decode_body(codec.decode(whole, Contribution).body, Codec.F16, PROBES, CLASSES).array[10:15]
    )


def failure(answer):
    assert isinstance(answer.event, WorkFailed)
    return answer.event.reason


def test_a_contribution_over_the_byte_budget_is_not_made(bench):
    assert "the offer allows 50" in failure(bench.core().handle(bench.predict(byte_budget=50)))


def test_probes_that_the_device_does_not_have_cannot_be_labelled(bench):
    foreign = Slice(bench.public.digest, 1, PROBES, CLASSES)
    assert "no probes 1 to 61" in failure(bench.core().handle(bench.predict(slice=foreign)))


# Training.


def test_a_device_learns_from_the_consensus_what_its_own_rows_never_show(tmp_path):
    bench = Bench(tmp_path, rows=60, classes=[0])
    core = bench.core()
    core.handle(bench.warm_up())
    local = bench.accuracy(core)
    event = core.handle(bench.train(terms=replace(TERMS, epochs=40, probe_weight=1.0))).event
    assert isinstance(event, Trained)
    assert event.accepted
    assert local < 0.5 < 0.9 < bench.accuracy(core)


def test_a_report_says_what_training_did(bench):
    event = bench.core().handle(bench.train()).event
    assert set(event.metrics) == {
        "loss", "steps", "hold_out_accuracy", "hold_out_accuracy_personal", "release_accuracy",
    }  # fmt: skip
    assert event.metrics["steps"] == 4 * np.ceil((108 + PROBES) / 64)


def test_a_training_made_again_is_answered_from_the_checkpoint(bench):
    first = bench.core().handle(bench.train())
    kept = bench.checkpoint.read_bytes()
    assert bench.core().handle(bench.train()) == first
    assert bench.checkpoint.read_bytes() == kept


def test_a_training_repeated_from_before_gives_the_same_weights(bench):
    bench.core().handle(bench.warm_up())
    before = bench.checkpoint.read_bytes()
    bench.core().handle(bench.train())
    once = bench.checkpoint.read_bytes()
    bench.checkpoint.write_bytes(before)
    bench.core().handle(bench.train())
    assert bench.checkpoint.read_bytes() == once


def test_optimizer_memory_goes_on_from_round_to_round(bench):
    core = bench.core()
    core.handle(bench.train(number=1))
    steps = checkpoints.load(bench.checkpoint).step
    bench.core().handle(bench.train(labels=(bench.truth() + 1) % 3, number=2))
    assert checkpoints.load(bench.checkpoint).step == 2 * steps


def good_bundle(bench):
    """Put weights into the bundle that are right about nearly everything: the release that the guard defends."""
    core = bench.core()
    core.handle(bench.train(terms=replace(TERMS, epochs=100)))
    theta = np.frombuffer(checkpoints.load(bench.checkpoint).theta, "<f4")
    write_bundle(bench.folder / "bundle", theta)
    bench.checkpoint.unlink()


def test_weights_that_fall_far_below_the_release_are_put_back(bench):
    good_bundle(bench)
    core = bench.core()
    before = core.logits(np.ones((1, SIZE), np.float32))
    poison = replace(TERMS, epochs=300, probe_weight=100.0)
    event = core.handle(bench.train(labels=(bench.truth() + 1) % 3, number=2, terms=poison)).event
    assert (event.accepted, event.reason) == (False, GUARD)
    assert event.metrics["hold_out_accuracy"] < event.metrics["release_accuracy"]
    np.testing.assert_array_equal(core.logits(np.ones((1, SIZE), np.float32)), before)
    np.testing.assert_array_equal(bench.core().logits(np.ones((1, SIZE), np.float32)), before)


def test_a_consensus_that_is_not_what_its_headers_name_is_not_trained_on(bench):
    job = bench.train()
    mixed = replace(job, messages=(job.messages[0], bench.train(labels=np.zeros(PROBES, int)).messages[1]))
    assert "DigestError" in failure(bench.core().handle(mixed))


def test_a_consensus_at_two_temperatures_is_not_trained_on(bench):
    job = bench.train()
    blocks = [codec.decode(message, ConsensusBlock) for message in job.messages]
    mixed = (job.messages[0], codec.encode(replace(blocks[1], temperature=3.0)))
    assert "one temperature" in failure(bench.core().handle(replace(job, messages=mixed)))


@pytest.mark.parametrize("changes", [{"epochs": 5}, {"learning_rate": 3e-2}, {"probe_weight": 0.5}])
def test_the_offer_decides_how_a_device_trains(bench, changes):
    bench.core().handle(bench.train())
    once = bench.checkpoint.read_bytes()
    bench.checkpoint.unlink()
    bench.core().handle(bench.train(terms=replace(TERMS, **changes)))
    assert bench.checkpoint.read_bytes() != once


def test_distillation_is_at_the_temperature_of_the_consensus(bench):
    weights = []
    for temperature in (2.0, 3.0):
        model = load_bundle(bench.folder / "bundle").open("numpy")
        rows = LabelledRows(np.zeros((0, SIZE), np.float32), np.zeros(0, np.int64), CLASSES)
        learner = Learner(model, b"b" * 32, PrivateFeatures(rows, rows), None, seed=b"")
        probes = ProbeRows(np.ones((4, SIZE), np.float32), np.full((4, CLASSES), 1 / 3, np.float32))
        learner.train(sha256(b"consensus"), probes, temperature, TERMS)
        weights.append(model.train_session.state.theta)
    assert not np.array_equal(*weights)


def test_a_training_that_diverges_leaves_everything_as_it_was(bench):
    core = bench.core()
    before = core.logits(np.ones((1, SIZE), np.float32))
    job = bench.train(terms=replace(TERMS, learning_rate=10.0, epochs=50))
    assert "diverged" in failure(core.handle(job))
    np.testing.assert_array_equal(core.logits(np.ones((1, SIZE), np.float32)), before)
    assert not bench.checkpoint.exists()


def test_a_checkpoint_that_cannot_be_written_undoes_the_training(bench):
    bench.checkpoint = bench.folder / "no such folder" / "checkpoint"
    core = bench.core()
    before = core.logits(np.ones((1, SIZE), np.float32))
    assert "FileNotFoundError" in failure(core.handle(bench.train()))
    np.testing.assert_array_equal(core.logits(np.ones((1, SIZE), np.float32)), before)


def test_a_training_whose_supervisor_is_gone_is_broken_off(bench):
    core = bench.core(between=Between(lambda: True))
    with pytest.raises(BrokenOffError):
        core.handle(bench.train())
    assert not bench.checkpoint.exists()


# The checkpoint.


def test_a_new_worker_goes_on_from_the_checkpoint(bench):
    core = bench.core()
    core.handle(bench.warm_up())
    core.handle(bench.train())
    inputs = np.ones((1, SIZE), np.float32)
    np.testing.assert_array_equal(bench.core().logits(inputs), core.logits(inputs))


def test_a_damaged_checkpoint_costs_what_was_learned_and_not_the_model(bench):
    fresh = bench.core().logits(np.ones((1, SIZE), np.float32))
    bench.core().handle(bench.train())
    whole = bench.checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[-200] ^= 1
    for damaged in (whole[:-1], whole[:10], b"", bytes(flipped)):
        bench.checkpoint.write_bytes(damaged)
        np.testing.assert_array_equal(bench.core().logits(np.ones((1, SIZE), np.float32)), fresh)


def test_a_checkpoint_of_another_bundle_is_not_taken(bench):
    bench.core().handle(bench.train())
    write_bundle(bench.folder / "bundle", version="2")
    fresh = load_bundle(bench.folder / "bundle").open("numpy").tail.logits(np.ones((1, SIZE), np.float32))
    np.testing.assert_array_equal(bench.core().logits(np.ones((1, SIZE), np.float32)), fresh)


SAVE_WITH_LITTLE_ROOM = """
import resource, signal, sys
from pathlib import Path
from edge_agent.learning import checkpoint
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
checkpoint.save(Path(sys.argv[1]), checkpoint.Checkpoint(b"b" * 32, b"new!" * 1000))
"""


@pytest.mark.parametrize("how", ["SIG_DFL", "SIG_IGN"], ids=["killed", "refused by the disk"])
def test_a_worker_stopped_in_the_middle_of_saving_leaves_the_old_checkpoint(tmp_path, how):
    path, old = tmp_path / "checkpoint", checkpoints.Checkpoint(b"b" * 32, b"old!" * 1000)
    checkpoints.save(path, old)
    done = subprocess.run([sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, path, how], capture_output=True, check=False)
    assert done.returncode == (-signal.SIGXFSZ if how == "SIG_DFL" else 1)
    assert checkpoints.load(path) == old


# Private rows.


def test_what_power_cuts_left_of_checkpoints_goes_at_the_next_start_and_with_the_next_one(bench):
    folder = bench.checkpoint.parent
    names = ("checkpoint", "checkpoint.progress", "checkpoint-private", "checkpoint-private.progress")
    left = [folder / f".{name}.a1b2c3d4" for name in names]
    for file in left:
        file.write_bytes(b"theta")
    core = bench.core()
    assert [file for file in left if file.exists()] == []
    left[0].write_bytes(b"theta")
    core.handle(bench.warm_up())
    assert bench.checkpoint.exists()
    assert not left[0].exists()


def test_one_row_in_ten_is_held_out_where_that_gives_ten():
    for rows, expected in [(99, 0), (100, 10), (270, 27)]:
        training, hold_out = PrivateRows(np.zeros((rows, 1)), np.zeros(rows, np.int64)).split()
        assert (training.sum(), hold_out.sum()) == (rows - expected, expected)
        assert not (training & hold_out).any()


def test_rows_and_labels_go_together():
    with pytest.raises(InvalidValueError):
        PrivateRows(np.zeros((3, 1)), np.zeros(2, np.int64))


def test_probes_that_take_their_time_are_seen_to_go_on(tmp_path):
    public = load_public_set(write_public_set(tmp_path / "public", probes=300))
    model = load_bundle(write_bundle(tmp_path / "bundle")).open("numpy")
    steps = []
    seen = SeenProbes(public, model, lambda: steps.append(1))
    assert len(steps) == 3  # 128 at a time
    assert len(seen.points) == 300
    assert len(steps) == 6
