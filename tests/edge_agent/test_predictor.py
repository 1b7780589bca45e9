"""The predictor: the model's own word, whatever thread asks, with the weights of the last accepted training."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_agent.inference.latency import BOUNDS_S, Latency, Stage
from edge_agent.inference.predictor import Adjustment, Predictions, Predictor, SampleError
from edge_agent.inference.sample_queue import SampleQueue
from edge_agent.learning.local_prior import log_prior
from fd_protocol.errors import InvalidValueError
from fd_protocol.soft_labels import soften
from fd_runtime.models.model import ThetaError
from fd_runtime.space import preprocessed
from tests.support.patience import PATIENCE_S
from tests.support.small_bundles import PICTURES, pictures, small_bundle


@pytest.fixture(scope="module", params=["onnxruntime", "litert"])
def opened(request, tmp_path_factory):
    options = {"tflite": "where-possible"} if request.param == "litert" else {}
    bundle = small_bundle(tmp_path_factory.mktemp("bundles") / "small", **options)
    if request.param not in bundle.manifest.verified_on:
        pytest.skip(f"not proven on {request.param} here")
    return bundle, request.param


@pytest.fixture
def model(opened):
    bundle, runtime = opened
    return bundle.open(runtime)


@pytest.fixture
def predictor(opened, model):
    bundle, runtime = opened
    return Predictor(model, bundle.open_tail(runtime))


def expected(model, samples):
    return soften(model.tail.logits(model.features(preprocessed(samples, PICTURES))), 1.0)


@pytest.mark.parametrize("rows", [1, 2, 70])
def test_it_says_what_the_model_says(predictor, model, rows):
    samples, _ = pictures(rows, seed=1)
    said = predictor.predict(samples)
    assert np.allclose(said.probabilities, expected(model, samples), atol=1e-6)
    assert said.labels.tolist() == said.probabilities.argmax(axis=1).tolist()
    assert np.allclose(said.confidence, said.probabilities.max(axis=1), atol=1e-6)
    assert len(said) == len(said.sample_ids) == len(set(said.sample_ids)) == rows


def test_names_that_are_given_are_kept_and_others_are_never_given_twice(predictor, opened, model):
    samples, _ = pictures(3)
    assert list(predictor.predict(samples, sample_ids=["a", "b", "c"]).sample_ids) == ["a", "b", "c"]
    another = Predictor(model, opened[0].open_tail(opened[1]))
    ids = [*predictor.predict(samples).sample_ids, *predictor.predict(samples).sample_ids]
    ids += another.predict(samples).sample_ids
    assert len(set(ids)) == 9


def test_new_weights_count_from_the_next_call_on_and_the_trained_tail_is_another(predictor, model, opened):
    samples, _ = pictures(5)
    before = predictor.predict(samples).probabilities
    theta = np.random.default_rng(0).standard_normal(opened[0].manifest.layout.size).astype(np.float32) * 0.3
    model.tail.load(theta)  # what a training tries
    assert np.array_equal(predictor.predict(samples).probabilities, before)
    predictor.load(theta)
    assert np.allclose(predictor.predict(samples).probabilities, expected(model, samples), atol=1e-6)


def test_weights_that_do_not_fit_change_nothing(predictor):
    samples, _ = pictures(2)
    before = predictor.predict(samples).probabilities
    with pytest.raises(ThetaError):
        predictor.load(np.zeros(3, np.float32))
    assert np.array_equal(predictor.predict(samples).probabilities, before)


def test_the_class_prior_makes_predictions_personal_and_can_be_taken_away(predictor):
    samples, _ = pictures(40, seed=2)
    plain = predictor.predict(samples).probabilities
    prior = log_prior(np.array([1] * 98 + [0]), 3)
    predictor.adjustment = Adjustment(log_prior=prior)
    personal = predictor.predict(samples).probabilities
    by_bayes = plain * np.exp(prior)
    assert np.allclose(personal, by_bayes / by_bayes.sum(axis=1, keepdims=True), atol=1e-5)
    assert personal[:, 1].mean() > plain[:, 1].mean()
    predictor.adjustment = Adjustment()
    assert np.array_equal(predictor.predict(samples).probabilities, plain)


def test_a_temperature_makes_it_less_sure_and_changes_no_label(predictor):
    samples, _ = pictures(20, seed=3)
    plain = predictor.predict(samples)
    predictor.adjustment = Adjustment(temperature=4.0)
    soft = predictor.predict(samples)
    assert soft.labels.tolist() == plain.labels.tolist()
    assert (soft.confidence < plain.confidence).all()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((1, 12, 12), np.uint8),
        np.zeros((1, 1, 12, 13), np.uint8),
        np.zeros((1, 1, 12, 12), np.float32),
        np.zeros((0, 1, 12, 12), np.uint8),
    ],
)
def test_what_is_no_sample_of_the_task_is_refused(predictor, samples):
    with pytest.raises(SampleError, match=r"samples must be uint8 \[n, 1, 12, 12\]"):
        predictor.predict(samples)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(2, 12)),
        elements=st.one_of(st.floats(-50, 50, width=32), st.sampled_from([np.nan, np.inf, -np.inf])),
    )
)
def test_one_row_alone_is_answered_as_among_others_and_a_row_that_is_no_number_as_nothing_known(logits):
    together = Predictions(np.concatenate([logits, logits]), ["x"] * 2 * len(logits))
    for row in range(len(logits)):
        alone = Predictions(logits[row : row + 1], ["x"])
        label, confidence = alone.best[0]
        assert 0.0 <= confidence <= 1.0
        assert confidence == pytest.approx(together.best[row][1], abs=1e-5)
        known = not (np.isnan(logits[row]).any() or np.isposinf(logits[row]).any() or np.isneginf(logits[row]).all())
        if known:
            assert label == together.best[row][0] == logits[row].argmax()
            assert np.allclose(alone.probabilities[0][np.isneginf(logits[row])], 0.0)
        else:
            assert confidence == pytest.approx(1 / logits.shape[1])
        assert alone.probabilities.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_margin_is_the_distance_to_the_next_class():
    said = Predictions(np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)), ["a", "b"])
    assert np.allclose(said.margins, [0.2, 0.7], atol=1e-6)


def test_many_threads_are_answered_rightly_while_weights_change(predictor, model, opened):
    samples, _ = pictures(60, seed=4)
    factory = expected(model, samples)
    theta = np.random.default_rng(1).standard_normal(opened[0].manifest.layout.size).astype(np.float32) * 0.3
    model.tail.load(theta)
    other = expected(model, samples)
    stop, wrong = threading.Event(), []

    def ask(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            count = int(rng.integers(1, 9))  # LiteRT resizes its tensors in place
            first = int(rng.integers(0, 60 - count))
            said = predictor.predict(samples[first : first + count]).probabilities
            rows = slice(first, first + count)
            if not any(np.allclose(said, known[rows], atol=1e-5) for known in (factory, other)):
                wrong.append((first, count))

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    first = np.frombuffer(opened[0].read("theta"), "<f4").astype(np.float32)
    for _ in range(20):
        for weights in (theta, first):
            predictor.load(weights)
            model.features(preprocessed(samples[:7], PICTURES))  # as a round does on the main thread
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert wrong == []


def test_whoever_observes_sees_features_and_plain_logits_of_live_samples_alone(model, opened):
    seen = []
    predictor = Predictor(model, opened[0].open_tail(opened[1]), observe=lambda *what: seen.append(what))
    predictor.adjustment = Adjustment(temperature=7.0)
    samples, _ = pictures(4)
    predictor.predict(samples, is_observed=False)
    assert seen == []
    predictor.predict(samples)
    ((features, logits),) = seen
    assert len(features) == 4
    assert np.allclose(logits, predictor.logits(features), atol=1e-6)
    assert len(logits) == 4


@pytest.mark.parametrize("temperature", [0.0, -1.0, 101.0, float("nan")])
def test_no_temperature_is_absurd(temperature):
    with pytest.raises(InvalidValueError):
        Adjustment(temperature)


# Latency.


def test_each_stage_is_counted_by_the_sample(predictor):
    predictor.predict(pictures(5)[0])
    predictor.predict(pictures(1)[0])
    for stage in (Stage.PREPROCESS, Stage.BACKBONE, Stage.TAIL):
        histogram = predictor.latency.histogram(stage)
        assert histogram.count == 6
        assert histogram.sum_s > 0
    assert predictor.latency.histogram(Stage.WAIT).count == 0


@given(st.floats(1e-9, 100.0))
def test_a_time_falls_into_the_bin_that_holds_it(seconds):
    latency = Latency()
    latency.record(Stage.WAIT, 1, seconds)
    histogram = latency.histogram(Stage.WAIT)
    place = histogram.counts.index(1)
    low = BOUNDS_S[place - 1] if place else 0.0
    high = BOUNDS_S[place] if place < len(BOUNDS_S) else float("inf")
    assert low <= seconds <= high
    assert histogram.sum_s == pytest.approx(seconds)


def test_a_quantile_is_the_bound_of_its_bin():
    latency = Latency()
    assert latency.histogram(Stage.TAIL).quantile_s(0.5) == 0.0
    for seconds in [1e-4] * 98 + [1.0, 100.0]:
        latency.record(Stage.TAIL, 1, seconds)
    histogram = latency.histogram(Stage.TAIL)
    assert 1e-4 <= histogram.quantile_s(0.5) <= 2e-4
    assert 1.0 <= histogram.quantile_s(0.99) <= 2.2
    assert histogram.quantile_s(1.0) == float("inf")


def test_nothing_is_lost_when_many_threads_write_and_one_reads():
    latency = Latency()
    threads = [
        threading.Thread(target=lambda: [latency.record(Stage.WAIT, 1, 1e-3, 2e-3) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        latency.histogram(Stage.WAIT)
    for thread in threads:
        thread.join()
    assert latency.histogram(Stage.WAIT).count == latency.histogram(Stage.PREPROCESS).count == 8000


# The queue.


def test_the_oldest_make_room_for_the_newest_and_are_counted():
    queue = SampleQueue(3)
    for number in range(10):
        queue.put(number)
    assert queue.dropped == 7
    assert len(queue) == 3
    assert queue.take(2, 0.0) == [7, 8]
    assert queue.take(2, 0.0) == [9]
    assert queue.take(2, 0.0) == []


def test_who_can_wait_waits_for_room_and_makes_none_for_others():
    queue, stop = SampleQueue(2), threading.Event()
    queue.put_when_room("file 1", stop)
    queue.put("camera 1")
    waiting = threading.Thread(target=queue.put_when_room, args=("file 2", stop))
    waiting.start()
    queue.put("camera 2")  # in the place of the camera's own
    assert queue.take(1, 0.0) == ["file 1"]
    waiting.join(10)
    assert not waiting.is_alive()
    assert queue.take(2, 0.0) == ["camera 2", "file 2"]
    assert queue.dropped == 1


def test_among_those_that_are_never_dropped_a_sample_that_may_be_is():
    queue, stop = SampleQueue(2), threading.Event()
    queue.put_when_room(1, stop)
    queue.put_when_room(2, stop)
    queue.put(3)
    assert (queue.take(3, 0.0), queue.dropped) == ([1, 2], 1)


def test_who_waits_for_room_stops_when_everything_does():
    queue, stop = SampleQueue(1), threading.Event()
    queue.put_when_room(1, stop)
    waiting = threading.Thread(target=queue.put_when_room, args=(2, stop))
    waiting.start()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert (queue.take(2, 0.0), queue.dropped) == ([1], 0)


def test_taking_waits_for_the_first_and_for_no_other():
    queue = SampleQueue(10)
    threading.Timer(0.05, lambda: (queue.put(1), queue.put(2))).start()
    assert queue.take(5, 10.0)[0] == 1
