"""The loop: samples of sources and of the API are predicted, kept, told and watched; what fails costs itself."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from edge_agent.inference.calibration import calibrate
from edge_agent.inference.drift_watch import DriftWatch
from edge_agent.inference.known_rows import KnownRows
from edge_agent.inference.latency import Stage
from edge_agent.inference.loop import Loop
from edge_agent.inference.predictor import Predictor, SampleError
from edge_agent.inference.settings import DriftSettings, InferenceSettings
from edge_agent.inference.source_runner import SourceRunner
from edge_agent.process.notices import Alarm, Measured
from fd_protocol.errors import FedistillError
from fd_runtime.storage.store import StoreFullError
from tests.edge_agent.stores import FedSource, Heard, MemoryStore, Sample, until
from tests.support.small_bundles import PICTURES, pictures


class Bench:
    """A loop with a real model, a store in memory, one source and one output."""

    def __init__(self, bundle, *, store=None, settings=None, window=100, every_s=0.0, prior=True):
        self.notices, self.refreshed = [], []
        self.watch = DriftWatch(bundle.manifest, DriftSettings(window=window, every_s=every_s))
        self.model = bundle.open("onnxruntime")
        self.predictor = Predictor(self.model, bundle.open_tail("onnxruntime"), observe=self.watch.observe)
        self.store, self.source, self.heard = store, FedSource(), Heard()
        self.loop = Loop(
            self.predictor,
            settings or InferenceSettings(),
            sources={"camera": self.source},
            outputs=[self.heard],
            store=store,
            watch=self.watch,
            calibrate=self.calibrate if prior else lambda: None,
            refresh=lambda: self.refreshed.append(True),
            tell=self.notices.append,
        )
        self.loop.start()

    def calibrate(self):
        known = KnownRows(self.store.rows(PICTURES.sample_shape), None, self.model)()
        return calibrate(known, self.predictor.logits, has_prior=True, has_temperature=True)

    def alarms(self, name):
        return [notice.text for notice in self.notices if isinstance(notice, Alarm) and notice.name == name]


@pytest.fixture
def stage(bundle):
    made = []

    def make(**options):
        made.append(Bench(bundle, **{"store": MemoryStore(), **options}))
        return made[-1]

    yield make
    for one in made:
        one.loop.close()


def samples(count, seed=0, **change):
    values, _ = pictures(count, seed, **change)
    return [Sample(value, f"s-{seed}-{number}", 1_700_000_000_000 + number) for number, value in enumerate(values)]


def test_a_captured_sample_is_predicted_kept_and_told(stage):
    made = stage()
    (sample,) = samples(1)
    made.source.put(sample)
    (told,) = until(lambda: made.heard.said)
    expected = made.predictor.predict(sample.sample[None], is_observed=False)
    label, confidence = expected.best[0]
    assert (told.sample_id, told.label, told.at_ms, told.source) == (
        "s-0-0",
        PICTURES.classes[label],
        sample.at_ms,
        "camera",
    )
    assert told.confidence == pytest.approx(confidence)
    kept = made.store.facts["s-0-0"]
    assert (kept["guess"], kept["source"], kept["at_ms"]) == (label, "camera", sample.at_ms)
    assert kept["margin"] == pytest.approx(float(expected.margins[0]))
    assert np.array_equal(made.store.samples["s-0-0"], sample.sample)
    counts = made.loop.facts()
    assert (counts["predictions"], counts["kept"], counts["refused"]) == (1, 1, 0)


def test_many_are_answered_in_order_and_each_stage_is_timed(stage):
    made = stage(settings=InferenceSettings(batch=8, queue=1000))
    made.source.put(*samples(60))
    until(lambda: len(made.heard.said) == 60)
    assert [one.sample_id for one in made.heard.said] == [f"s-0-{number}" for number in range(60)]
    for each in Stage:
        assert made.loop.latency.histogram(each).count == 60
    assert set(made.loop.facts()["latency_ms"]) == {"wait", "preprocess", "backbone", "tail", "output"}


def test_too_slow_a_model_drops_the_oldest_and_says_how_many(bundle):
    heard = Heard()
    predictor = Predictor(bundle.open("onnxruntime"), bundle.open_tail("onnxruntime"))
    loop = Loop(predictor, InferenceSettings(batch=4, queue=10), outputs=[heard])
    for sample in samples(50):
        loop.deliver(sample)
    loop.start()
    until(lambda: len(heard.said) == 10)
    loop.close()
    assert [one.sample_id for one in heard.said] == [f"s-0-{number}" for number in range(40, 50)]
    assert loop.dropped == 40
    assert heard.is_closed


def test_a_sample_of_no_use_costs_itself_and_not_its_batch(stage, caplog):
    made = stage(settings=InferenceSettings(batch=16, queue=1000))
    good = samples(8)
    bad = [
        Sample(np.zeros((1, 9, 9), np.uint8), "bad-shape"),
        Sample(np.zeros((1, 12, 12), np.float32), "bad-type"),
        Sample(np.zeros((), np.uint8), "no-shape"),
    ]
    with caplog.at_level(logging.WARNING):
        made.source.put(*good[:3], *bad, *good[3:])
        until(lambda: len(made.heard.said) == 8)
    assert made.loop.counts.refused == 3
    assert {one.sample_id for one in made.heard.said} == {one.sample_id for one in good}
    assert "is of no use: samples must be uint8" in caplog.text


def test_labels_of_a_source_are_kept_by_name_or_number_and_others_are_none(stage, caplog):
    made = stage()
    values, _ = pictures(4)
    with caplog.at_level(logging.WARNING):
        for number, label in enumerate(["dog", 2, "zebra", 17]):
            made.source.put(Sample(values[number], f"s-{number}", label=label))
        until(lambda: len(made.heard.said) == 4)
    assert {name: label for name, (label, _) in made.store.labels.items()} == {"s-0": 1, "s-1": 2}
    assert "'zebra' is no class of the task" in caplog.text


def test_a_store_that_cannot_write_costs_the_sample_and_inference_goes_on(stage, caplog):
    store = MemoryStore()
    store.error = StoreFullError("rows", "no room")
    made = stage(store=store)
    with caplog.at_level(logging.WARNING):
        made.source.put(*samples(5))
        until(lambda: len(made.heard.said) == 5)
    assert (made.loop.counts.kept, made.loop.counts.not_kept) == (0, 5)
    assert caplog.text.count("samples are not kept: store rows: no room") == 1
    store.error = None
    made.source.put(*samples(1, seed=1))
    until(lambda: made.loop.counts.kept == 1)


def test_without_a_store_predictions_are_told_and_labels_have_no_home(stage):
    made = stage(store=None, prior=False)
    made.source.put(*samples(1))
    until(lambda: made.heard.said)
    assert made.loop.label("s-0-0", "cat", "api") is False
    assert made.loop.skip("s-0-0") is False


def test_a_source_that_fails_is_an_alarm_and_is_run_again(bundle):
    source, notices, delivered, stop = FedSource(), [], [], threading.Event()
    runner = SourceRunner("camera", source, delivered.append, notices.append, pause_s=0.01)
    runner.start(stop)
    source.put(RuntimeError("unplugged\nor not"), OSError("still"))
    until(lambda: source.runs >= 3)
    (sample,) = samples(1)
    source.put(sample)
    until(lambda: delivered)
    until(lambda: len(notices) == 3)
    assert [notice.text for notice in notices] == ["RuntimeError: unplugged or not", "OSError: still", ""]
    assert {notice.name for notice in notices} == {"source-camera"}
    assert runner.facts() == {"delivered": 1}
    source.put(None)
    until(lambda: runner.facts().get("has_ended"))
    stop.set()
    runner.join(5)


def test_the_api_predicts_at_once_and_its_samples_are_of_the_devices_life(stage):
    made = stage()
    values, _ = pictures(3, seed=5)
    said = made.loop.predict(values, labels=["cat", None, 1])
    assert len(said) == 3
    assert [one.sample_id for one in made.heard.said] == list(said.sample_ids)
    assert {one.source for one in made.heard.said} == {"api"}
    assert [made.store.labels.get(one, (None,))[0] for one in said.sample_ids] == [0, None, 1]


def test_a_test_file_leaves_no_trace(stage):
    made = stage()
    made.loop.predict(pictures(3)[0], is_live=False)
    assert made.heard.said == []
    assert made.store.samples == {}
    assert made.watch.facts()["window"] == "0 of 100 rows"
    with pytest.raises(SampleError):
        made.loop.predict(np.zeros((1, 2), np.uint8), is_live=False)


def test_a_label_reaches_the_store_and_whoever_asked_about_the_sample(stage):
    made, settled = stage(), []
    made.loop.listeners.append(settled.append)
    said = made.loop.predict(pictures(2)[0])
    assert made.loop.label(said.sample_ids[0], "fox", "page")
    assert made.store.labels[said.sample_ids[0]] == (2, "page")
    assert made.loop.label("nobody", "fox", "page") is False
    with pytest.raises(KeyError):
        made.loop.label(said.sample_ids[1], "zebra", "page")
    assert made.loop.skip(said.sample_ids[1])
    assert settled == list(said.sample_ids)
    assert made.loop.counts.labels == 1


def test_labels_change_the_class_prior_and_it_is_shown(stage):
    made = stage()
    said = made.loop.predict(pictures(40)[0])
    assert made.loop.facts()["personal"]["corrects_by_class_prior"] is False
    for name in said.sample_ids:
        made.loop.label(name, "dog", "page")
    personal = until(lambda: made.loop.facts()["personal"]["class_prior"])
    until(lambda: made.loop.facts()["personal"]["labelled_rows"] == 40)
    personal = made.loop.facts()["personal"]["class_prior"]
    assert max(personal, key=personal.get) == "dog"
    assert sum(personal.values()) == pytest.approx(1.0, abs=1e-3)


def test_new_weights_are_heard_at_once_and_confidence_is_learnt_anew(stage, bundle):
    made = stage()
    values, _ = pictures(4)
    before = made.loop.predict(values, is_live=False).probabilities
    theta = np.random.default_rng(0).standard_normal(bundle.manifest.layout.size).astype(np.float32) * 0.3
    made.loop.take_weights(theta)
    assert not np.allclose(made.loop.predict(values, is_live=False).probabilities, before, atol=1e-3)


def test_new_weights_come_with_a_temperature_of_their_own(stage):
    made, calibrated = stage(), []
    made.loop._calibrate = lambda: calibrated.append(made.predictor._tail)
    made.loop.take_weights(np.zeros(made.predictor._model.manifest.layout.size, np.float32))
    assert calibrated  # before it returns: the next answer has both


def test_drift_is_an_alarm_makes_it_calibrate_anew_and_the_store_let_go(stage):
    made = stage(settings=InferenceSettings(queue=5000))
    calibrated = []
    made.loop._calibrate = lambda: calibrated.append(True)
    made.source.put(*samples(250, seed=1))
    until(lambda: made.loop.counts.predicted == 250)
    assert made.alarms("drift") == []
    assert not made.loop.facts()["drift"]["is_drifted"]
    before = len(calibrated)
    made.source.put(*samples(250, seed=2, brightness=0.35))
    until(lambda: made.alarms("drift"))
    assert made.alarms("drift")[0].startswith("samples ")
    until(lambda: made.refreshed and len(calibrated) > before)
    assert made.loop.facts()["drift"]["is_drifted"]
    made.source.put(*samples(200, seed=3, brightness=0.35))
    until(lambda: made.alarms("drift")[-1] == "")
    assert made.loop.facts()["drift"]["reference"] == "device"


def test_numbers_are_told_to_the_supervisor(stage):
    made = stage()
    until(lambda: any(isinstance(notice, Measured) for notice in made.notices))


def test_a_calibration_that_fails_is_told_and_costs_nothing(bundle, caplog):
    def fails():
        raise FedistillError("no rows today")

    heard = Heard()
    predictor = Predictor(bundle.open("onnxruntime"), bundle.open_tail("onnxruntime"))
    loop = Loop(predictor, InferenceSettings(), outputs=[heard], calibrate=fails)
    with caplog.at_level(logging.WARNING):
        loop.start()
        loop.deliver(samples(1)[0])
        until(lambda: heard.said)
        until(lambda: "not calibrated: no rows today" in caplog.text)
    loop.close()
