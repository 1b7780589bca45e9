"""The hold-out of a store that another process owns: seen as it is, and left as it was."""

import secrets
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.private.facts import is_held_out
from edge_agent.private.keys import KeyFileError
from edge_agent.private.looking import held_out
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.private.table import PrivateStoreError, WrongKeyError
from fd_runtime.artifacts import load_bundle
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import TASK, clouds, write_bundle
from tests.edge_agent.private.noise import NOW_MS

ROWS = 300
SAMPLES, LABELS = clouds(ROWS, seed=5)
HELD = [number for number in range(ROWS) if is_held_out(f"id-{number}")]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return load_bundle(write_bundle(tmp_path_factory.mktemp("bundle"))).manifest


def fill(store, numbers=range(ROWS)):
    for number in numbers:
        store.add(
            SAMPLES[number],
            sample_id=f"id-{number}",
            label=int(LABELS[number]),
            confidence=None,
            at_ms=NOW_MS,
            source="camera",
        )
    return store


def opened(path, manifest, settings):
    return PrivateStore.open(path, settings, manifest, clock=lambda: NOW_MS)


def look(path, settings, most=1000, at_once=16, task=TASK):
    batches = list(held_out(path, settings, task, most=most, at_once=at_once))
    if not batches:
        return np.empty((0, *task.sample_shape), np.uint8), np.empty(0, np.int64), []
    return (
        np.concatenate([batch.samples for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        [len(batch) for batch in batches],
    )


@pytest.fixture(params=["in the open", "sealed"])
def settings(request, tmp_path):
    return StoreSettings(rows=1000, key_file=tmp_path / "key" if request.param == "sealed" else None)


def test_the_held_out_rows_are_seen_while_their_owner_has_them_open(tmp_path, manifest, settings):
    store = fill(opened(tmp_path / "private.db", manifest, settings))
    samples, labels, sizes = look(tmp_path / "private.db", settings)
    assert len(HELD) > 16
    assert np.array_equal(samples, SAMPLES[HELD])
    assert np.array_equal(labels, LABELS[HELD])
    assert max(sizes) <= 16
    fill(store, range(5))  # its owner goes on writing
    store.close()


def test_the_newest_count_where_there_are_more_than_wanted(tmp_path, manifest, settings):
    fill(opened(tmp_path / "private.db", manifest, settings)).close()
    samples, _, _ = look(tmp_path / "private.db", settings, most=7)
    assert np.array_equal(samples, SAMPLES[HELD[-7:]])


def test_nothing_is_written(tmp_path, manifest, settings):
    store = fill(opened(tmp_path / "private.db", manifest, settings))
    with Store.view(tmp_path / "private.db") as watcher:
        before = watcher.changes
        look(tmp_path / "private.db", settings)
        assert watcher.changes == before
    store.close()


def test_a_row_that_goes_while_somebody_looks_is_left_out(tmp_path, manifest, settings):
    store = fill(opened(tmp_path / "private.db", manifest, settings))
    batches = held_out(tmp_path / "private.db", settings, TASK, most=1000, at_once=4)
    first = next(batches)
    with store._changing() as pools:
        pools.delete([pools.numbers[f"id-{HELD[4]}"]])
    rest = [label for batch in batches for label in batch.labels]
    assert len(first) + len(rest) == len(HELD) - 1
    assert rest == [LABELS[number] for number in HELD[5:]]
    store.close()


def test_a_look_keeps_nothing_of_what_is_deleted_in_the_log(tmp_path, manifest, settings):
    store = fill(opened(tmp_path / "private.db", manifest, settings))
    batches = held_out(tmp_path / "private.db", settings, TASK, most=1000, at_once=4)
    next(batches)
    store._table.flush()  # which a reader with an open transaction would keep from emptying the log
    assert (tmp_path / "private.db-wal").stat().st_size == 0
    batches.close()
    store.close()


def test_no_store_is_a_store_without_rows_and_none_is_made(tmp_path, settings):
    assert look(tmp_path / "private.db", settings)[2] == []
    assert not (tmp_path / "private.db").exists()
    assert settings.key_file is None or not settings.key_file.exists()


def test_another_key_or_none_is_said(tmp_path, manifest):
    sealed = StoreSettings(rows=1000, key_file=tmp_path / "key")
    fill(opened(tmp_path / "private.db", manifest, sealed)).close()
    with pytest.raises(PrivateStoreError, match="no key is configured"):
        look(tmp_path / "private.db", replace(sealed, key_file=None))
    other = tmp_path / "other"
    other.write_bytes(secrets.token_bytes(32))
    other.chmod(0o600)
    with pytest.raises(WrongKeyError):
        look(tmp_path / "private.db", replace(sealed, key_file=other))
    other.chmod(0o644)
    with pytest.raises(KeyFileError):
        look(tmp_path / "private.db", replace(sealed, key_file=other))


def test_rows_that_are_not_sealed_yet_are_seen_and_stay_so(tmp_path, manifest):
    plain = StoreSettings(rows=1000)
    fill(opened(tmp_path / "private.db", manifest, plain)).close()
    keyed = replace(plain, key_file=tmp_path / "key")
    keyed.key_file.write_bytes(secrets.token_bytes(32))
    keyed.key_file.chmod(0o600)
    assert len(look(tmp_path / "private.db", keyed)[1]) == len(HELD)
    assert len(look(tmp_path / "private.db", plain)[1]) == len(HELD)


def test_rows_of_another_task_are_no_hold_out(tmp_path, manifest, settings):
    fill(opened(tmp_path / "private.db", manifest, settings)).close()
    with pytest.raises(PrivateStoreError, match="is about"):
        look(tmp_path / "private.db", settings, task=replace(TASK, classes=("a", "b", "other")))
