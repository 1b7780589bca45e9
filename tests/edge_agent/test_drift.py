"""Drift: known shifts are found, no shift is not, and what was said stays said over a restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.inference import drift
from edge_agent.inference.drift import (
    FALSE_ALARMS,
    SIZE,
    Shift,
    critical,
    effective_rows,
    shift_of_confidence,
    shift_of_inputs,
    stability_index,
)
from edge_agent.inference.drift_watch import BUNDLE, DEVICE, Drifted, DriftSettings, DriftWatch, Settled
from fd_protocol.manifest import Manifest
from fd_protocol.reference import Binned
from fd_runtime.models.reference import binned, pooled, reference_of
from tests.edge_agent.artifacts import write_bundle

WINDOW, FEATURES, CLASSES = 300, 16, 3


def rows(count=WINDOW, seed=0, shift=0.0, scale=1.0):
    """Independent rows; feature 3 is shifted and stretched."""
    numbers = np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)
    numbers[:, 3] = numbers[:, 3] * scale + shift
    return numbers


REFERENCE = reference_of(rows(1000, seed=99), None)


def test_the_index_is_the_one_of_the_formula():
    spread = Binned((1.0, 2.0), (0.5, 0.25, 0.25))
    values = np.array([0.0] * 30 + [1.5] * 30 + [3.0] * 40, np.float32)
    found = (np.array([30, 30, 40]) + 0.5) / 101.5
    expected = np.array([0.5, 0.25, 0.25]) + 1e-6
    assert stability_index(spread, values) == pytest.approx(((found - expected) * np.log(found / expected)).sum())


def test_the_quantiles_of_chance_are_those_of_tables():
    for degrees, share, table in ((9, 0.999, 27.88), (9, 0.95, 16.92), (1, 0.99, 6.63), (4, 0.999, 18.47)):
        assert drift._chi_squared(degrees, share) == pytest.approx(table, rel=0.015)
    assert critical(1, 300, 1000, 1e-3) == 0.0


def test_of_samples_that_are_as_ever_no_more_windows_exceed_chance_than_is_said(monkeypatch, says):
    """2000 windows; the size of 0.25 alone, which is far above chance here, is set aside."""
    monkeypatch.setattr(drift, "SIZE", 0.0)
    beyond = sum(shift_of_inputs(REFERENCE, rows(seed=seed)).is_drift for seed in range(2000))
    says(
        f"drift: {beyond} of 2000 windows of unchanged samples exceed chance, at most {2000 * FALSE_ALARMS:.0f} wanted"
    )
    upper = 2000 * FALSE_ALARMS + 3 * np.sqrt(2000 * FALSE_ALARMS)
    assert beyond <= upper


def test_of_samples_that_are_as_ever_none_is_called_drift():
    assert not any(shift_of_inputs(REFERENCE, rows(seed=seed)).is_drift for seed in range(300))


@pytest.mark.parametrize("change", [{"shift": 0.7}, {"shift": -0.7}, {"scale": 2.0}, {"scale": 0.4}], ids=str)
def test_a_feature_that_moves_or_spreads_is_found_and_named(change):
    found = [shift_of_inputs(REFERENCE, rows(seed=seed, **change)) for seed in range(20)]
    assert all(shift.is_drift and shift.feature == 3 for shift in found)


def test_a_small_shift_is_left_alone():
    found = [shift_of_inputs(REFERENCE, rows(seed=seed, shift=0.2)) for seed in range(20)]
    assert not any(shift.is_drift for shift in found)


def test_rows_that_follow_each_other_count_for_fewer():
    rng = np.random.default_rng(1)
    independent = rng.standard_normal(2000).astype(np.float32)
    walk = np.zeros(2000, np.float32)
    for place in range(1, 2000):
        walk[place] = 0.9 * walk[place - 1] + independent[place]
    assert effective_rows(independent) > 1800
    assert effective_rows(walk) == pytest.approx(2000 * 0.1 / 1.9, rel=0.3)
    assert 1.0 <= effective_rows(np.zeros(50, np.float32)) <= 50


def test_a_slow_series_that_is_as_ever_is_no_drift():
    """Without the correction by autocorrelation a third of these windows would be."""
    spread = binned(slow_series(200_000, seed=0)[::20])
    windows = [slow_series(WINDOW, seed=seed) for seed in range(1, 200)]
    naive = sum(stability_index(spread, window) > max(SIZE, critical(10, WINDOW, 10_000, 1e-3)) for window in windows)
    judged = sum(shift_of_confidence(spread, 10_000, window).is_drift for window in windows)
    assert naive > 60
    assert judged <= 4


def slow_series(count, seed):
    noise = np.random.default_rng(seed).standard_normal(count + 200)
    values = np.zeros(count + 200)
    for place in range(1, count + 200):
        values[place] = 0.95 * values[place - 1] + noise[place]
    return values[200:].astype(np.float32)


# The watch.


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def manifest(tmp_path):
    write_bundle(tmp_path / "bundle")
    plain = Manifest.from_json((tmp_path / "bundle" / "manifest.json").read_bytes())
    features, logits = stream(1000, seed=99)
    reference = reference_of(pooled(features), confidence_of(logits))
    return replace(plain, reference=reference)


def stream(count, seed, shift=0.0, sureness=1.0):
    rng = np.random.default_rng(seed)
    return rows(count, seed, shift), (rng.standard_normal((count, CLASSES)) * 2 * sureness).astype(np.float32)


def confidence_of(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)


def watch_of(manifest, path=None, clock=None, **settings):
    return DriftWatch(manifest, DriftSettings(**{"window": WINDOW, "every_s": 0.0, **settings}), path, clock or Clock())


def feed(watch, windows, seed=0, **change):
    """So many windows, in pieces of many sizes; return the news."""
    features, logits = stream(windows * WINDOW, seed, **change)
    for start in range(0, len(features), 50):
        watch.observe(features[start : start + 50], logits[start : start + 50])
    return watch.news()


def test_samples_like_those_of_the_bundle_are_no_news(manifest):
    watch = watch_of(manifest)
    assert feed(watch, 20) == []
    assert watch.facts()["reference"] == BUNDLE
    assert not watch.facts()["is_drifted"]


def test_one_strange_window_is_no_news_and_the_second_is(manifest):
    watch = watch_of(manifest)
    assert feed(watch, 1, shift=2.0) == []
    assert watch.facts()["is_suspected"]
    (news,) = feed(watch, 1, shift=2.0)
    assert isinstance(news, Drifted)
    assert news.inputs.is_drift
    assert news.inputs.feature == 3
    assert str(news).startswith("samples ")


def test_strange_windows_that_do_not_follow_each_other_are_no_news(manifest):
    watch = watch_of(manifest)
    for seed in range(5):
        assert feed(watch, 1, seed, shift=2.0) + feed(watch, 1, seed) == []


def test_a_drift_is_told_once_then_that_it_has_settled_then_the_way_back(manifest):
    watch = watch_of(manifest)
    (news,) = feed(watch, 2, shift=2.0)
    assert isinstance(news, Drifted)
    assert watch.facts()["is_drifted"]
    assert watch.facts()["reference"] == DEVICE
    assert feed(watch, 10, seed=1, shift=2.0) == [Settled()]
    (news,) = feed(watch, 2, seed=2)
    assert isinstance(news, Drifted)


def test_a_model_that_is_less_sure_of_the_same_samples_is_drift_of_confidence(manifest):
    (news,) = feed(watch_of(manifest), 2, sureness=0.2)
    assert not news.inputs.is_drift
    assert news.confidence.is_drift
    assert str(news).startswith("confidence ")


def test_other_parameters_make_another_confidence_and_no_alarm(manifest):
    watch = watch_of(manifest)
    watch.forget_confidence()
    assert feed(watch, 6, sureness=0.2) == []
    (news,) = feed(watch, 2, seed=1, sureness=3.0)
    assert news.confidence.is_drift


def test_a_bundle_without_a_reference_is_compared_with_the_first_window(manifest):
    watch = watch_of(replace(manifest, reference=None))
    assert watch.facts()["reference"] == "being learnt"
    assert feed(watch, 1, shift=5.0) == []
    assert watch.facts()["reference"] == DEVICE
    assert feed(watch, 5, seed=1, shift=5.0) == []
    assert len(feed(watch, 2, seed=2)) == 1


def test_what_a_device_was_told_it_is_not_told_again_after_a_restart(manifest, tmp_path):
    path = tmp_path / "drift"
    assert len(feed(watch_of(manifest, path), 2, shift=2.0)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    again = watch_of(manifest, path)
    assert again.facts()["reference"] == DEVICE
    assert feed(again, 5, seed=1, shift=2.0) == []


def test_another_bundle_begins_with_its_own_reference(manifest, tmp_path):
    path = tmp_path / "drift"
    feed(watch_of(manifest, path), 2, shift=2.0)
    assert watch_of(replace(manifest, version="2"), path).facts()["reference"] == BUNDLE


@pytest.mark.parametrize("content", [b"", b"{", b'{"bundle": 3}\n', bytes(range(200))])
def test_a_damaged_file_costs_the_reference_and_no_more(manifest, tmp_path, content):
    path = tmp_path / "drift"
    path.write_bytes(content)
    assert watch_of(manifest, path).facts()["reference"] == BUNDLE


def test_a_full_disk_costs_nothing_but_the_memory_of_it(manifest, tmp_path):
    watch = watch_of(manifest, tmp_path / "missing" / "drift")
    assert len(feed(watch, 2, shift=2.0)) == 1


def test_nothing_of_a_sample_is_kept(manifest, tmp_path):
    path = tmp_path / "drift"
    feed(watch_of(manifest, path), 2, shift=2.0)
    assert len(path.read_bytes()) < 10_000  # edges and shares; 300 rows of 16 numbers would be more


def test_of_fast_samples_few_count(manifest):
    clock = Clock()
    watch = watch_of(manifest, clock=clock, every_s=10.0)
    features, logits = stream(1000, 0)
    for place in range(1000):
        clock.now_s = place / 10  # ten a second
        watch.observe(features[place : place + 1], logits[place : place + 1])
    assert watch.facts()["window"] == f"10 of {WINDOW} rows"


def test_a_reference_of_other_features_is_replaced_not_compared(manifest):
    few = reference_of(rows(1000)[:, :5], None)
    watch = watch_of(replace(manifest, reference=few))
    assert feed(watch, 3) == []
    assert watch.facts()["reference"] == DEVICE


def test_the_numbers_of_the_last_window_are_there_for_whoever_measures(manifest):
    watch = watch_of(manifest)
    assert watch.measures() == {}
    feed(watch, 1)
    assert set(watch.measures()) == {"drift_inputs", "drift_confidence"}
    assert watch.facts()["inputs"]["threshold"] == pytest.approx(SIZE)


def test_a_shift_is_drift_beyond_its_threshold_and_not_on_it():
    assert not Shift(0.25, 0.25).is_drift
    assert Shift(0.26, 0.25).is_drift
