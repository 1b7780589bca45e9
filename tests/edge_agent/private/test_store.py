"""What the private store keeps, for how long, and what it tells of it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.local_broker import LocalBrokerSettings
from edge_agent.private.capacity import StoreTooSmallError
from edge_agent.private.facts import HOLD_OUT_SHARE, is_held_out
from edge_agent.private.settings import GuessSettings, LateLabelSettings, StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.private.table import PrivateStoreError, RowTable
from edge_agent.process.notices import PrivateRowsChanged
from fd_protocol.errors import InvalidValueError
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import Space, preprocessed
from fd_runtime.storage.store import StoreFullError
from tests.edge_agent.private import busy
from tests.edge_agent.private.artifacts import (
    DAY_MS,
    TASK,
    Bench,
    found_in,
    windows,
    write_bundle,
)
from tests.edge_agent.private.noise import NOW_MS, sample, samples
from tests.faults.warm import Warm
from tests.support.patience import wait_until

GUESSES = GuessSettings(confidence=0.9, share=0.25)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def bench(tmp_path, bundle):
    return Bench(tmp_path, bundle.manifest)


def bench_with(tmp_path, bundle, **settings):
    return Bench(tmp_path, bundle.manifest, **settings)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def seen(store, model):
    """(features, labels) of the rows to train on, and of those held out."""
    rows = store.seen_by(model)
    return [(rows.features(model)[mask], rows.labels[mask]) for mask in rows.split()]


def held_out_numbers(count, *, wanted=True):
    """The first numbers whose ids lie on that side."""
    numbers = (number for number in range(10_000) if is_held_out(f"id-{number}") is wanted)
    return [next(numbers) for _ in range(count)]


# Labelled rows.


def test_labelled_samples_come_back_as_rows_after_a_crash(bench):
    for number in range(30):
        assert bench.add(number, label=number % 3)
    rows = bench.open().rows()
    np.testing.assert_array_equal(rows.samples, np.stack([sample(number) for number in range(30)]))
    np.testing.assert_array_equal(rows.labels, np.arange(30) % 3)
    assert rows.samples.dtype == np.uint8


def test_a_store_without_rows_has_arrays_of_none(bench):
    rows = bench.store.rows()
    assert (rows.samples.shape, rows.labels.shape, rows.split()[0].shape) == ((0, 1, 12, 12), (0,), (0,))


def test_a_second_sample_of_an_id_is_the_first(bench):
    bench.add(1, label=0)
    assert bench.store.add(sample(2), sample_id="id-1", label=1, confidence=None, at_ms=0, source="x")
    rows = bench.store.rows()
    assert (len(rows), rows.labels[0]) == (1, 0)
    np.testing.assert_array_equal(rows.samples[0], sample(1))


def test_classes_share_the_room(bench):
    for number in range(600):
        bench.add(number, label=0 if number % 20 else 1 + number // 20 % 2)
    capacity = bench.store.summary().capacity["labelled"]
    assert bench.store.summary().classes == {0: capacity - 30, 1: 15, 2: 15}
    assert bench.open().summary().classes == {0: capacity - 30, 1: 15, 2: 15}


def test_a_sample_that_is_none_of_the_task_is_refused(bench):
    add = {"sample_id": "x", "confidence": None, "at_ms": 0, "source": ""}
    for wrong, label in ((sample(0)[0], 0), (sample(0).astype(np.float32), 0), (sample(0), 3), (sample(0), -1)):
        with pytest.raises(InvalidValueError):
            bench.store.add(wrong, label=label, **add)
    with pytest.raises(InvalidValueError):
        bench.store.label("x", 3, by="me")
    assert bench.ids() == set()


# Sides.


def test_a_side_is_a_fair_draw_by_the_id_alone():
    sides = [is_held_out(f"sample {number}") for number in range(20_000)]
    assert abs(np.mean(sides) - HOLD_OUT_SHARE) < 4 * np.sqrt(HOLD_OUT_SHARE * (1 - HOLD_OUT_SHARE) / 20_000)
    assert is_held_out("sample 1") == is_held_out("sample 1")


def test_a_row_keeps_its_side_whatever_is_said_of_it(bench):
    numbers = range(60)
    for number in numbers:
        bench.add(number, label=0)
    before = bench.store.rows().is_held_out
    assert before.tolist() == [is_held_out(f"id-{number}") for number in numbers]
    for number in numbers:
        bench.store.label(f"id-{number}", 1, by="me")
    rows = bench.open().rows()
    np.testing.assert_array_equal(rows.is_held_out, before)
    assert set(rows.labels) == {1}


def test_what_is_held_out_is_never_trained_on_however_few_rows_there_are(bench):
    for number in held_out_numbers(3) + held_out_numbers(4, wanted=False):
        bench.add(number, label=0)
    training, hold_out = bench.store.rows().split()
    assert (training.sum(), hold_out.sum()) == (4, 3)


# How common classes are.


def test_it_tells_how_common_classes_were_and_not_how_many_rows_it_keeps_of_each(bench):
    for number in range(600):
        bench.add(number, label=0 if number % 20 else 1 + number // 20 % 2)
    assert bench.store.met() == pytest.approx({0: 570, 1: 15, 2: 15})
    assert bench.open().met() == pytest.approx({0: 570, 1: 15, 2: 15}, rel=0.2)  # counts on disk may lag
    bench.store.refresh()
    assert bench.store.met() == pytest.approx(bench.store.summary().classes)


def test_samples_that_somebody_chose_to_label_do_not_tell_how_common_their_class_is(tmp_path, bundle):
    late = LateLabelSettings(LocalBrokerSettings(), "line/+/result")
    bench = bench_with(tmp_path, bundle, awaiting=5, late_labels=late)
    bench.add(0, label=0)
    for number in (1, 2, 3):
        bench.add(number, confidence=0.4, source=f"s{number}")
    assert bench.store.label("id-1", 1, by="api")
    assert bench.store.label("id-2", 2, by="line/4/result")
    assert bench.store.met() == {0: 1.0, 2: 1.0}
    assert bench.store.label("id-0", 1, by="api")  # a person corrects what came with the sample
    assert bench.store.met() == {2: 1.0}


def test_what_is_held_out_is_apart_and_guesses_are_no_labels(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, guesses=GUESSES, questions=0)
    held_out, trained_on = held_out_numbers(6), held_out_numbers(9, wanted=False)
    for number in held_out + trained_on:
        bench.add(number, label=number % 3)
    (guessed,) = set(held_out_numbers(10, wanted=False)) - set(trained_on)
    bench.add(guessed, confidence=0.95, guess=1)
    assert sorted(bench.store.training_labels()) == sorted(number % 3 for number in trained_on)
    model = bundle.open("onnxruntime")
    newest = bench.store.held_out(model, 4)
    np.testing.assert_array_equal(newest.labels, [number % 3 for number in held_out[-4:]])
    expected = model.features(preprocessed(np.stack([sample(number) for number in held_out[-4:]]), TASK))
    np.testing.assert_array_equal(newest.features(model), expected)
    assert len(bench.store.held_out(model, 100)) == 6


# Labels that come later.


def test_a_question_that_is_answered_becomes_a_labelled_row(bench):
    bench.add(1, confidence=0.4, guess=2)
    assert len(bench.store.rows()) == 0
    assert bench.store.label("id-1", 1, by="owner")
    rows = bench.open().rows()
    assert rows.labels.tolist() == [1]
    np.testing.assert_array_equal(rows.samples[0], sample(1))
    assert bench.store.uncertain() == []


def test_a_label_for_a_sample_that_is_gone_is_told(bench):
    assert not bench.store.label("id-1", 1, by="owner")


def test_a_later_label_corrects_an_earlier_one(bench):
    bench.add(1, label=0)
    assert bench.store.label("id-1", 2, by="owner")
    assert bench.open().rows().labels.tolist() == [2]
    assert bench.store.summary().classes == {2: 1}


def test_a_sample_that_comes_again_with_a_label_is_labelled(bench):
    bench.add(1, confidence=0.4)
    bench.add(1, label=2)
    assert bench.open().rows().labels.tolist() == [2]


def test_where_no_labels_come_late_a_sample_that_is_not_odd_is_not_kept(bench):
    for number in range(40):
        bench.add(number, confidence=0.5 + number / 100, at_ms=number * DAY_MS + NOW_MS - 50 * DAY_MS)
    assert bench.ids() == {f"id-{number}" for number in range(10)}
    assert not bench.add(77)
    assert not bench.add(78, confidence=0.99)


def test_where_labels_come_late_the_newest_samples_wait_for_them(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, awaiting=5)
    for number in range(12):
        bench.clock.now_ms += 1
        assert bench.add(number)
    assert bench.pool("awaiting") == {f"id-{number}" for number in range(7, 12)}
    assert not bench.store.label("id-6", 0, by="topic")
    assert bench.store.label("id-7", 0, by="topic")
    assert bench.open().rows().labels.tolist() == [0]


# Guesses (pseudo-labels).


def test_guesses_are_off_unless_asked_for(bench):
    bench.add(3, confidence=0.999, guess=1)
    assert len(bench.store.rows()) == 0


def test_a_sure_guess_is_a_row_to_train_on_and_an_unsure_one_is_not(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, guesses=GUESSES, questions=0)
    sure, unsure = held_out_numbers(2, wanted=False)
    bench.add(sure, confidence=0.9, guess=1)
    bench.add(unsure, confidence=0.89, guess=1)
    assert bench.pool("guessed") == {f"id-{sure}"}
    assert bench.open().rows().labels.tolist() == [1]


def test_a_guess_is_never_held_out(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, guesses=GUESSES, questions=0)
    for number in range(200):
        bench.add(number, confidence=0.95, guess=number % 3)
    rows = bench.store.rows()
    assert len(rows) > 20
    assert not rows.is_held_out.any()
    assert not any(is_held_out(name) for name in bench.pool("guessed"))


def test_guesses_never_take_the_place_of_labelled_rows(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, guesses=GUESSES)
    capacity = bench.store.summary().capacity
    for number in range(400):
        bench.add(number, label=number % 3)
    for number in range(400, 900):
        bench.add(number, confidence=0.95, guess=0)
    summary = bench.store.summary()
    assert capacity["guessed"] == int(150 * 0.25)
    assert (summary.rows["labelled"], summary.rows["guessed"]) == (capacity["labelled"], capacity["guessed"])


def test_a_guess_that_someone_labels_is_a_guess_no_more(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, guesses=GUESSES)
    (number,) = held_out_numbers(1, wanted=False)
    bench.add(number, confidence=0.95, guess=0)
    assert bench.store.label(f"id-{number}", 2, by="owner")
    assert (bench.pool("guessed"), bench.pool("labelled")) == (set(), {f"id-{number}"})
    assert bench.open().rows().labels.tolist() == [2]


# Questions.


def test_questions_are_the_least_sure_rows_and_are_asked_once(bench):
    for number in range(30):
        bench.add(number, confidence=0.5 + number / 100, guess=number % 3, source=f"s{number}")
    asked = bench.store.uncertain(4)
    assert [one.sample_id for one in asked] == ["id-0", "id-1", "id-2", "id-3"]
    assert (asked[1].confidence, asked[1].guess, asked[1].at_ms) == (0.51, 1, NOW_MS)
    np.testing.assert_array_equal(bench.store.sample("id-1"), sample(1))
    assert [one.sample_id for one in bench.open().uncertain(4)] == ["id-0", "id-1", "id-2", "id-3"]
    bench.store.label("id-0", 1, by="owner")
    assert bench.store.skip("id-1")
    assert [one.sample_id for one in bench.open().uncertain(4)] == ["id-2", "id-3", "id-4", "id-5"]
    assert not bench.store.skip("id-1")


def test_a_question_on_show_stays_until_its_time_is_up(bench):
    bench.add(0, confidence=0.9, source="s0")
    bench.store.uncertain()
    for number in range(1, 30):
        bench.add(number, confidence=0.4, source=f"s{number}")
    assert "id-0" in bench.pool("asked")
    bench.clock.now_ms += 7 * DAY_MS
    bench.store.expire()
    assert "id-0" in bench.pool("asked")
    bench.clock.now_ms += 1
    bench.store.expire()
    assert "id-0" not in bench.ids()
    assert len(bench.open().uncertain()) == 9


def test_a_question_that_ends_without_an_answer_waits_on_where_labels_come_late(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, awaiting=3)
    bench.add(0, confidence=0.4)
    bench.store.uncertain()
    bench.store.skip("id-0")
    assert bench.pool("awaiting") == {"id-0"}
    assert bench.open().label("id-0", 1, by="topic")


# Epochs.


def test_a_new_epoch_is_told_of_when_enough_rows_have_changed(bench):
    for number in range(19):
        bench.add(number, label=0)
    assert (bench.store.epoch, bench.told) == (0, [])
    bench.add(19, label=0)
    assert (bench.store.epoch, bench.told) == (1, [PrivateRowsChanged(1, 20)])
    assert bench.open().epoch == 1
    for number in range(20, 29):
        bench.add(number, label=0)
    bench.open()
    for number in range(5):
        bench.store.label(f"id-{number}", 1, by="owner")
    for number in range(29, 35):
        bench.add(number, label=0)
    assert bench.told[1:] == [PrivateRowsChanged(2, 35)]


def test_whoever_hears_of_a_new_epoch_may_ask_for_its_rows_at_once(tmp_path, bundle):
    heard = []
    bench = bench_with(tmp_path, bundle)
    bench.store._tell = lambda _: heard.append(len(bench.store.rows()))
    threads = [
        threading.Thread(target=lambda first: [bench.add(n, label=0) for n in range(first, first + 10)], args=(first,))
        for first in (0, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert heard == [20]


def test_unlabelled_rows_make_no_epoch(bench):
    for number in range(60):
        bench.add(number, confidence=0.4, source=f"s{number}")
    assert bench.store.epoch == 0


def test_after_a_drift_new_rows_take_the_places_of_old_ones_soon(bench):
    for number in range(900):
        bench.add(number, label=number % 3)
    bench.store.refresh()
    bench.open()
    for number in range(900, 1200):
        bench.add(number, label=number % 3)
    new = sum(int(name[3:]) >= 900 for name in bench.pool("labelled"))
    capacity = bench.store.summary().capacity["labelled"]
    assert new / capacity == pytest.approx(300 / (300 + capacity), abs=0.12)


# Bounds.


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 30, 40), (3, 64, 64), (3, 224, 224)])
@pytest.mark.parametrize("encrypted", [False, True])
def test_the_files_stay_under_their_megabytes_and_use_them(tmp_path, bundle, shape, encrypted):
    megabytes = 1 if shape[1] < 64 else 4
    manifest = replace(bundle.manifest, task=replace(TASK, sample_shape=shape))
    key = tmp_path / "key" if encrypted else None
    settings = StoreSettings(megabytes=megabytes, rows=100_000, questions=3, awaiting=3, key_file=key)
    folder = tmp_path / "store"
    folder.mkdir()
    store = PrivateStore.open(folder / "private.db", settings, manifest, clock=lambda: NOW_MS)
    store._table._database._execute("PRAGMA synchronous=OFF")  # sizes alone are of interest
    codes = samples(20, shape=manifest.features.shape)
    model = LoadedModel(
        manifest, SimpleNamespace(extract=lambda inputs: codes[np.arange(len(inputs)) % 20]), None, None
    )
    pictures, most = samples(20, shape=shape), 0
    for number in range(int(sum(store.summary().capacity.values()) * 1.5) + 20):
        label = number % 3 if number % 20 else None
        store.add(
            pictures[number % 20], sample_id=str(number), label=label, confidence=0.5, at_ms=NOW_MS, source=str(number)
        )
        if number % (50 if megabytes == 1 else 5) == 0:
            store.seen_by(model)
            most = max(most, sum(file.stat().st_size for file in folder.iterdir()))
    assert (megabytes << 20) * 0.5 <= most <= megabytes << 20
    assert store.summary().rows["labelled"] == store.summary().capacity["labelled"]


def test_the_rows_stay_under_their_number(bench):
    for number in range(500):
        bench.add(number, label=number % 3 if number % 2 else None, confidence=0.5, source=str(number))
    assert len(bench.ids()) == 150


def test_too_little_room_for_a_row_of_each_class_is_told(tmp_path, bundle):
    with pytest.raises(StoreTooSmallError, match="leave 2 for labelled ones"):
        bench_with(tmp_path, bundle, rows=12)


def test_smaller_settings_let_rows_go(bench):
    for number in range(300):
        bench.add(number, label=number % 3 if number % 2 else None, confidence=0.5, source=str(number))
    bench.open(rows=40, questions=4)
    summary = bench.store.summary()
    assert (summary.rows["labelled"], summary.rows["asked"]) == (36, 4)
    assert set(summary.classes.values()) == {12}


@pytest.mark.parametrize("step", ["put_sample", "put", "set_value"])
def test_a_full_disk_costs_samples_and_nothing_else(bench, monkeypatch, step):
    bench.add(1, label=0)

    def fail(*_):
        raise StoreFullError(None, "database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(bench.store._table, step, fail)
        assert not bench.add(2, label=1)
    assert bench.ids() == {"id-1"}
    assert bench.store.summary().classes == {0: 1}
    assert bench.add(2, label=1)
    assert bench.open().rows().labels.tolist() == [0, 1]


def test_on_a_disk_that_is_really_full_the_store_goes_on_once_there_is_room(bundle, small_disk):
    bench = Bench(small_disk, bundle.manifest, megabytes=64, rows=2000)
    for number in range(20):
        bench.add(number, label=number % 3)
    fill(small_disk)
    kept = [bench.add(number, label=number % 3) for number in range(20, 400)]
    assert not all(kept)
    (small_disk / "filler").unlink()
    assert bench.add(9999, label=0)
    rows = bench.open().rows()
    assert len(rows) == 21 + sum(kept)


def test_a_store_opens_on_a_full_disk_and_does_later_what_that_did_not_take(bundle, small_disk, caplog):
    bench = Bench(small_disk, bundle.manifest, megabytes=64, rows=2000)
    for number in range(30):
        bench.add(number, label=number % 3)
    bench.clock.now_ms += 1000
    bench.add(30, label=0)
    bench.clock.now_ms = NOW_MS + 365 * DAY_MS + 1  # one row is left
    fill(small_disk)
    bench.open()
    assert len(bench.ids()) == 31
    assert "old rows stay for now" in caplog.text
    (small_disk / "filler").unlink()
    assert bench.store.tidy() == 30
    assert bench.ids() == {"id-30"}


@pytest.mark.parametrize(("step", "left"), [("delete", 100), ("shrink", 30)])
def test_smaller_settings_that_a_full_disk_did_not_take_count_once_it_does(bench, monkeypatch, step, left):
    for number in range(100):
        bench.add(number, label=number % 3)
    bench.told.clear()
    shrunk = []

    def shrink(_table):
        shrunk.append(1)

    def full(*_):
        raise StoreFullError(None, "database or disk is full")

    monkeypatch.setattr(RowTable, "disk_bytes", lambda _: 1 << 40)
    monkeypatch.setattr(RowTable, "shrink", shrink)
    with monkeypatch.context() as disk:
        disk.setattr(RowTable, step, full)
        bench.open(rows=40)
        bench.store.tidy()
    assert (len(bench.ids()), shrunk) == (left, [])
    bench.store.tidy()
    bench.store.tidy()
    assert (len(bench.ids()), len(shrunk)) == (30, 1)
    assert bench.told[-1].rows == 30


def test_old_rows_whose_traces_a_full_disk_kept_leave_none_the_next_time(bench, monkeypatch):
    bench.add(1, label=0)
    bench.clock.now_ms += 366 * DAY_MS

    def full(*_):
        raise StoreFullError(None, "database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(RowTable, "flush", full)
        assert bench.store.tidy() == 0
    assert (bench.ids(), found_in(bench.path.parent, windows(sample(1))) != []) == (set(), True)
    bench.store.tidy()
    assert found_in(bench.path.parent, windows(sample(1))) == []


# Age.


def test_rows_that_are_too_old_leave_no_trace(bench):
    for number in range(20):
        bench.add(number, label=number % 3)
    bench.add(50, confidence=0.4)
    bench.clock.now_ms += 1000
    for number in range(20, 25):
        bench.add(number, label=0)
    old = set().union(*(windows(sample(number)) for number in [*range(20), 50]))
    assert found_in(bench.path.parent, old)
    bench.clock.now_ms = NOW_MS + 365 * DAY_MS + 1
    assert bench.store.expire() == 21
    assert bench.ids() == {f"id-{number}" for number in range(20, 25)}
    assert found_in(bench.path.parent, old) == []
    assert found_in(bench.path.parent, windows(sample(20)))


def test_rows_that_grew_too_old_while_the_device_was_off_are_gone_when_it_starts(bench):
    for number in range(25):
        bench.add(number, label=number % 3)
    bench.clock.now_ms += 366 * DAY_MS
    bench.open()
    assert bench.ids() == set()
    assert bench.told[-1] == PrivateRowsChanged(2, 0)


# Features.


class Counting:
    """A backbone that counts the rows that it sees."""

    def __init__(self, backbone):
        self.backbone, self.rows = backbone, 0

    def extract(self, inputs):
        self.rows += len(inputs)
        return self.backbone.extract(inputs)


def counted(bundle):
    model = bundle.open("onnxruntime")
    counting = Counting(model.backbone)
    return replace(model, backbone=counting), counting


def test_features_are_those_of_the_rows_and_made_once(bench, bundle):
    numbers = held_out_numbers(12) + held_out_numbers(20, wanted=False)
    for number in numbers:
        bench.add(number, label=number % 3)
    model, backbone = counted(bundle)
    training, hold_out = seen(bench.store, model)
    plain = bundle.open("onnxruntime")
    for (features, labels), part in ((training, numbers[12:]), (hold_out, numbers[:12])):
        expected = plain.features(preprocessed(np.stack([sample(number) for number in part]), TASK))
        np.testing.assert_array_equal(features, expected)
        assert features.dtype == np.uint8
        assert labels.tolist() == [number % 3 for number in part]
    looked = backbone.rows
    bench.add(500, label=0)
    assert len(bench.open().seen_by(model)) == 33
    assert backbone.rows == looked + 1 + 1  # the new row, and a row of zeros for the shape


def test_another_bundle_makes_its_own_features(bench, bundle, other_bundle):
    for number in range(10):
        bench.add(number, label=0)
    first = bench.store.seen_by(bundle.open("onnxruntime"))
    other = other_bundle.open("onnxruntime")
    expected = other.features(preprocessed(bench.store.rows().samples, TASK))
    np.testing.assert_array_equal(bench.store.seen_by(other).features(other), expected)
    with pytest.raises(InvalidValueError, match="another bundle"):
        first.features(other)


def test_a_store_without_rows_has_features_of_none(bench, bundle):
    rows = bench.store.seen_by(bundle.open("onnxruntime"))
    assert (len(rows), rows.codes.shape) == (0, (0, *bundle.manifest.features.shape))
    assert rows.located(Space(np.zeros(144, np.float32), np.eye(3, 144, dtype=np.float32), 1.0), TASK).shape == (0, 3)


# Encryption.


def fill_store(bench, count=30):
    for number in range(count):
        bench.add(number, label=number % 3, source="kitchen camera")
    bench.add(900, confidence=0.4, guess=1, source="kitchen camera")


def secrets_of(bundle, count=30):
    """All that must not be found in a file: samples, features, ids, names."""
    noise = np.stack([sample(number) for number in range(count)])
    features = bundle.open("onnxruntime").features(preprocessed(noise, TASK))
    found = set().union(*(windows(one) for one in noise), *(windows(one) for one in features))
    return {one for one in found if len(set(one)) > 4} | {b"kitchen camera", b"id-1"}


def test_with_a_key_nothing_of_a_sample_is_in_any_file(tmp_path, bundle):
    plain = bench_with(tmp_path, bundle)
    fill_store(plain)
    plain.store.seen_by(bundle.open("onnxruntime"))
    needles = secrets_of(bundle)
    assert all(found_in(tmp_path, {needle}) for needle in (b"kitchen camera", b"id-1", sample(3).tobytes()[:8]))
    folder = tmp_path / "sealed"
    folder.mkdir()
    sealed = bench_with(folder, bundle, key_file=tmp_path / "key")
    fill_store(sealed)
    sealed.store.seen_by(bundle.open("onnxruntime"))
    assert found_in(folder, needles) == []
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    rows = sealed.open().rows()
    np.testing.assert_array_equal(rows.samples, plain.store.rows().samples)
    assert sealed.store.summary().is_encrypted
    model = bundle.open("onnxruntime")
    np.testing.assert_array_equal(sealed.store.seen_by(model).codes, plain.store.seen_by(model).codes)


def test_another_key_is_an_error_that_says_so(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, key_file=tmp_path / "key")
    fill_store(bench)
    (tmp_path / "key").write_bytes(bytes(32))
    with pytest.raises(PrivateStoreError, match="encrypted with another key"):
        bench.open()
    with pytest.raises(PrivateStoreError, match="is encrypted, and no key is configured"):
        bench.open(key_file=None)


def test_a_key_that_is_gone_is_not_made_anew(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle, key_file=tmp_path / "key")
    fill_store(bench)
    (tmp_path / "key").unlink()
    with pytest.raises(Exception, match="cannot be read without it"):
        bench.open()
    assert not (tmp_path / "key").exists()


def test_what_was_kept_in_the_open_is_encrypted_once_there_is_a_key(tmp_path, bundle):
    folder = tmp_path / "store"
    folder.mkdir()
    bench = bench_with(folder, bundle)
    fill_store(bench)
    bench.store.seen_by(bundle.open("onnxruntime"))
    before, epoch = bench.store.rows(), bench.store.epoch
    bench.store.close()
    bench.open(key_file=tmp_path / "key")
    assert found_in(folder, secrets_of(bundle)) == []
    np.testing.assert_array_equal(bench.store.rows().samples, before.samples)
    assert (bench.store.epoch, bench.store.summary().classes) == (epoch, {0: 10, 1: 10, 2: 10})
    assert [one.sample_id for one in bench.open().uncertain()] == ["id-900"]


def test_a_store_of_other_classes_or_samples_is_refused(tmp_path, bundle):
    bench = bench_with(tmp_path, bundle)
    for change in ({"classes": ("x", "y", "z")}, {"sample_shape": (144,)}):
        other = replace(bundle.manifest, task=replace(TASK, **change))
        with pytest.raises(PrivateStoreError, match="wipe it, or name another folder"):
            PrivateStore.open(bench.path, bench.settings, other)


# Crashes.


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    warm = Warm(busy.__name__, tmp_path_factory.mktemp("warm"))
    yield warm
    warm.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_worker_killed_at_any_moment_leaves_a_whole_store(tmp_path, bundle, workers, encrypted):
    key = str(tmp_path / "key") if encrypted else None
    path = tmp_path / "private.db"
    for life in range(6):
        ready = tmp_path / f"ready-{life}"
        with workers.started("work", str(bundle.folder), str(path), life, key, str(ready)) as fork:
            wait_until(ready.exists)
            threading.Event().wait(0.05 + 0.07 * life)
            assert fork.is_alive()
            fork.kill()
        store = PrivateStore.open(path, busy.settings(key), bundle.manifest, clock=lambda: NOW_MS)
        pools, table = store._pools, store._table
        assert len(pools.numbers) == len(pools.facts)
        for number, facts in pools.facts.items():
            np.testing.assert_array_equal(table.sample(number), sample(int(facts.sample_id[3:])))
        assert {row["number"] for row in table._database.rows("samples", {})} == set(pools.facts)
        assert all(len(reservoir) <= reservoir._capacity for reservoir in pools._reservoirs.values())
        assert table._database.faults() == []
        store.close()
    assert len(pools.facts) > 20
