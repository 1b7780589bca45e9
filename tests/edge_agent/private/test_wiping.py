"""A wiped store is gone, key first; nothing old stays on a device where nothing comes in."""

from __future__ import annotations

import os
import threading

import pytest

from edge_agent.private.keys import KeyFileError
from edge_agent.private.settings import StoreSettings
from edge_agent.private.tending import tend
from edge_agent.private.wiping import Wiped, wipe
from fd_runtime.storage.store import StoreFullError
from tests.edge_agent.private.artifacts import DAY_MS, Bench, found_in, write_bundle
from tests.edge_agent.private.noise import sample
from tests.support.patience import wait_until


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle")).manifest


def test_a_wiped_store_leaves_no_file_and_no_key(tmp_path, manifest):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "agent.db").write_bytes(b"journal")
    bench = Bench(folder, manifest, key_file=tmp_path / "key")
    bench.add(1, label=0)
    assert wipe(bench.path, bench.settings) == Wiped(had_key=True, had_rows=True)
    assert [file.name for file in folder.iterdir()] == ["agent.db"]
    assert not (tmp_path / "key").exists()
    assert wipe(bench.path, bench.settings) == Wiped(had_key=False, had_rows=False)
    bench.open()
    assert bench.ids() == set()


def test_what_was_in_the_files_is_written_over_before_they_go(tmp_path, manifest):
    folder = tmp_path / "state"
    folder.mkdir()
    bench = Bench(folder, manifest)
    assert bench.add(1, label=0)
    bench.store.close()
    (folder / "private.db-journal").write_bytes(b"ward-3/patient-0042")
    secrets = [b"id-1", sample(1).tobytes()[:64], b"ward-3/patient-0042"]
    was = tmp_path / "was"  # what the disk has where the files were
    was.mkdir()
    for file in folder.iterdir():
        os.link(file, was / file.name)
    assert found_in(was, secrets) == ["private.db", "private.db-journal"]
    wipe(bench.path, bench.settings)
    assert list(folder.iterdir()) == []
    assert found_in(was, secrets) == []


def test_a_link_to_a_file_elsewhere_goes_and_the_file_stays(tmp_path, manifest):
    folder, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_bytes(b"not ours")
    (folder / "private.db").symlink_to(elsewhere)
    assert wipe(folder / "private.db", StoreSettings()) == Wiped(had_key=False, had_rows=True)
    assert (list(folder.iterdir()), elsewhere.read_bytes()) == ([], b"not ours")


def test_the_key_goes_even_where_the_files_cannot(tmp_path, manifest):
    bench = Bench(tmp_path, manifest, key_file=tmp_path / "key")
    (tmp_path / "private.db-extra").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        wipe(bench.path, bench.settings)
    assert not (tmp_path / "key").exists()


def test_a_credential_is_named_for_those_who_can_destroy_it(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "store").write_bytes(bytes(32))
    (tmp_path / "store").chmod(0o400)
    bench = Bench(tmp_path, manifest, credential="store")
    bench.add(1, label=0)
    assert wipe(bench.path, bench.settings) == Wiped(had_key=False, had_rows=True, key=tmp_path / "store")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(KeyFileError):
        wipe(bench.path, StoreSettings(credential="store"))


def test_old_rows_go_though_nothing_comes_in(tmp_path, manifest, caplog):
    bench, stop = Bench(tmp_path, manifest), threading.Event()
    bench.add(1, label=0)
    thread = threading.Thread(target=tend, args=(bench.store, stop, 0.01))
    thread.start()
    bench.clock.now_ms += 366 * DAY_MS
    wait_until(lambda: not bench.ids())
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_full_disk_ends_no_tending(tmp_path, manifest, monkeypatch, caplog):
    bench, stop, calls = Bench(tmp_path, manifest), threading.Event(), []

    def expire():
        calls.append(1)
        raise StoreFullError(None, "full")

    monkeypatch.setattr(bench.store, "expire", expire)
    thread = threading.Thread(target=tend, args=(bench.store, stop, 0.01))
    thread.start()
    wait_until(lambda: len(calls) > 2)
    stop.set()
    thread.join(30)
    assert "old rows stay for now" in caplog.text
