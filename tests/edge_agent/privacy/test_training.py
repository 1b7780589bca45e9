"""The loop over the clipping graph: the mechanism that the accountant counts, in parts of any size, from any step."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.privacy.noise import NoiseStream
from edge_agent.privacy.training import (
    PrivatePlan,
    PrivateTrainingDivergedError,
    clipped_sum,
    digest_of,
    train_privately,
)
from fd_protocol.identity import sha256
from fd_protocol.terms import PrivacyTerms
from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxPrivateTrainSession
from model_export.trainstep import compile_private_step
from tests.support.dense_tails import dense_tail

WIDTHS = (12, 8, 4)
TERMS = PrivacyTerms(epsilon=5.0, steps=12, sampling_rate=0.5, clip_norm=0.7, learning_rate=0.05, rows=40)
PLAN = PrivatePlan(TERMS, 0.9)
NOISE = NoiseStream(bytes(32), sha256(b"training"))


def session_of(optimizer="adam", weight_decay=0.0):
    tail = dense_tail(*WIDTHS)
    step = compile_private_step(
        tail.model,
        input_name="features",
        logits_name="logits",
        trainable=[slot.name for slot in tail.step.layout.slots],
        optimizer=optimizer,
        weight_decay=weight_decay,
    )
    return OnnxPrivateTrainSession(step.model.SerializeToString(), OptimizerState.fresh(tail.theta, step.slots))


def rows_of(count, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 256, (count, WIDTHS[0]), dtype=np.uint8)
    return LabelledRows(features, rng.integers(0, WIDTHS[-1], count), WIDTHS[-1])


def batch_of(rows):
    ones = np.ones(len(rows.labels), np.float32)
    return Batch(rows.features, rows.labels, np.zeros((len(ones), rows.classes), np.float32), ones, ones)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd"])
def test_a_clipped_sum_is_read_without_a_step(optimizer):
    """The oracle is momentum's slot, which holds the gradient as it came."""
    rows = rows_of(30)
    oracle = session_of("momentum")
    oracle.run(
        batch_of(rows), learning_rate=0.1, clip_norm=0.7, noise=np.zeros_like(oracle.state.theta), expected_rows=1.0
    )
    session = session_of(optimizer)
    before = session.state
    found = clipped_sum(session, batch_of(rows), 0.7)
    np.testing.assert_allclose(found, oracle.state.slots["velocity"], atol=2e-6)
    assert session.state is before


def test_decay_is_no_part_of_a_clipped_sum():
    rows = batch_of(rows_of(30))
    plain, decaying = session_of("sgd"), session_of("sgd", weight_decay=0.1)
    np.testing.assert_allclose(clipped_sum(decaying, rows, 0.7), clipped_sum(plain, rows, 0.7), atol=2e-6)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd"])
@pytest.mark.parametrize("part_rows", [1, 7, 20])
def test_a_lot_in_parts_leads_where_the_whole_lot_leads(optimizer, part_rows):
    whole, parts = session_of(optimizer), session_of(optimizer)
    train_privately(whole, rows_of(40), PLAN, NOISE)
    train_privately(parts, rows_of(40), PLAN, NOISE, part_rows=part_rows)
    np.testing.assert_allclose(parts.state.theta, whole.state.theta, atol=5e-5)
    assert parts.state.step == whole.state.step == TERMS.steps


@pytest.mark.parametrize("done", [1, 5, 11])
def test_a_training_that_is_gone_on_with_ends_in_the_same_bits(done):
    rows, whole, halves = rows_of(40), session_of(), session_of()
    train_privately(whole, rows, PLAN, NOISE)
    first = replace(TERMS, steps=done)
    train_privately(halves, rows, replace(PLAN, terms=first), NOISE)
    train_privately(halves, rows, PLAN, NOISE, done=done)
    assert halves.state.theta.tobytes() == whole.state.theta.tobytes()


class Recorder:
    """A session that notes what it is given."""

    def __init__(self, size=5):
        self.state = OptimizerState.fresh(np.zeros(size, np.float32), ())
        self.calls = []

    def run(self, batch, **terms):
        self.calls.append((batch, terms))
        self.state = OptimizerState(self.state.theta, {}, self.state.step + 1)
        return 0.0


def test_each_step_is_one_call_with_its_lot_its_noise_and_public_constants():
    rows, recorder = rows_of(60), Recorder(50)
    train_privately(recorder, rows, PLAN, NOISE)
    assert len(recorder.calls) == TERMS.steps
    for step, (batch, terms) in enumerate(recorder.calls):
        chosen = NOISE.lot(step, 60, TERMS.sampling_rate)
        np.testing.assert_array_equal(batch.features, rows.features[chosen])
        np.testing.assert_array_equal(terms["noise"], NOISE.normal(step, 50, 0.9 * 0.7))
        assert (terms["expected_rows"], terms["clip_norm"], terms["learning_rate"]) == (0.5 * 40, 0.7, 0.05)
        assert (batch.alpha == 1).all()
        assert (batch.weight == 1).all()


def test_without_rows_every_step_still_takes_its_noise():
    recorder = Recorder(50)
    train_privately(recorder, rows_of(0), PLAN, NOISE)
    assert len(recorder.calls) == TERMS.steps
    for step, (batch, terms) in enumerate(recorder.calls):
        assert (len(batch.weight), batch.weight.sum()) == (1, 0)
        np.testing.assert_array_equal(terms["noise"], NOISE.normal(step, 50, 0.9 * 0.7))


def test_the_divisor_is_a_public_number_whatever_the_rows():
    for count in (3, 60):
        recorder = Recorder()
        train_privately(recorder, rows_of(count), PLAN, NOISE)
        assert {terms["expected_rows"] for _, terms in recorder.calls} == {20.0}


def test_one_row_more_moves_a_step_by_no_more_than_the_clip():
    """Sensitivity of what is noised: the sum over the lot, part by part."""
    rows = rows_of(25)
    fewer = LabelledRows(rows.features[1:], rows.labels[1:], rows.classes)
    session = session_of()
    moved = clipped_sum(session, batch_of(rows), 0.7) - clipped_sum(session, batch_of(fewer), 0.7)
    assert 0 < np.linalg.norm(moved) <= 0.7 * (1 + 1e-4)


def test_weights_that_are_no_numbers_any_more_end_the_training():
    class Exploding(Recorder):
        def run(self, batch, **terms):
            super().run(batch, **terms)
            if len(self.calls) == 3:
                self.state = OptimizerState(np.full(5, np.inf, np.float32), {}, 3)

    with pytest.raises(PrivateTrainingDivergedError) as diverged:
        train_privately(Exploding(), rows_of(20), PLAN, NOISE)
    assert diverged.value.step == 3


def test_rows_have_an_identity_in_their_order():
    rows = rows_of(20)
    same = LabelledRows(rows.features.copy(), rows.labels.copy(), rows.classes)
    turned = LabelledRows(rows.features[::-1], rows.labels[::-1], rows.classes)
    relabelled = LabelledRows(rows.features, (rows.labels + 1) % 4, rows.classes)
    assert digest_of(rows) == digest_of(same)
    assert len({digest_of(each) for each in (rows, turned, relabelled, rows_of(19), rows_of(0))}) == 5
