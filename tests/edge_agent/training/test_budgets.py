"""What is written, sent and held in memory: counted, kept over restarts, bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.training.data_use import DataUse, used
from edge_agent.training.memory import rows_within
from edge_agent.training.wear import DAY_S, Wear, Writers, Written, interval_s
from fd_protocol.manifest import Costs, Manifest, TrainSpec
from fd_runtime.artifacts import load_bundle
from fd_runtime.links.link import Traffic
from fd_runtime.storage.store import Store, StoreFullError, StoreUnwritableError
from tests.edge_agent.artifacts import LAYOUT, write_bundle

MB = 1_000_000
NOW = 1_800_000_000
FIXED = 4 * LAYOUT.size * 10 + len(b"not read by numpy either")


# Flash wear.


def test_what_this_process_writes_is_counted_by_the_kernel(tmp_path):
    path = tmp_path / "data"
    writers = Writers(Path("/proc"), (os.getpid(),))
    (before,) = writers.read().values()
    with path.open("wb") as file:
        file.write(os.urandom(3 * MB))
        file.flush()
        os.fsync(file.fileno())
    (after,) = writers.read().values()
    if _is_in_memory(tmp_path):
        pytest.skip("a tmpfs wears no flash, and the kernel does not count it")
    assert 3 * MB <= after - before < 8 * MB


def _is_in_memory(path):
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip() in ("tmpfs", "ramfs")


def test_a_process_that_is_gone_or_not_ours_counts_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert Writers(Path("/proc"), (child.pid,)).read() == {}
    assert Writers(tmp_path, (1,)).read() == {}


def test_a_process_with_a_strange_name_is_told_from_an_earlier_one_of_its_number(tmp_path):
    def process(started, written):
        (tmp_path / "7").mkdir(exist_ok=True)
        (tmp_path / "7" / "io").write_text(f"rchar: 1\nwrite_bytes: {written}\ncancelled_write_bytes: 9\n")
        (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) S {' '.join(['1'] * 18)} {started} 0 0\n")
        return Writers(tmp_path, (7,)).read()

    assert process(555, 10) == {"7 555": 10}
    assert process(556, 20) == {"7 556": 20}


def test_only_what_is_new_counts_and_every_process_from_its_beginning():
    written = Written().after({"1 a": 100}, 5)
    assert written.written_bytes == 100
    written = written.after({"1 a": 150, "2 b": 30}, 5)
    assert written.written_bytes == 180
    written = written.after({"2 b": 30, "3 c": 7}, 5)
    assert written.written_bytes == 187


def test_a_new_day_begins_at_nothing_and_a_clock_that_runs_back_begins_none():
    written = Written().after({"1 a": 100}, 5).after({"1 a": 110}, 6)
    assert (written.day, written.written_bytes) == (6, 10)
    written = written.after({"1 a": 115}, 2)
    assert (written.day, written.written_bytes) == (6, 15)


class Flash:
    """A disk that takes what a test says, and a clock."""

    def __init__(self, path, most_mb=100.0):
        self.path, self.most_mb, self.counts, self.now_s = path, most_mb, {"1 a": 0}, float(NOW)

    def wear(self):
        return Wear(self.path, self.most_mb, writers=lambda: dict(self.counts), clock=lambda: self.now_s)


def test_the_count_outlives_its_process(tmp_path):
    flash = Flash(tmp_path / "wear.json")
    wear = flash.wear()
    flash.counts["1 a"] = 40 * MB
    wear.look()
    wear.keep()
    flash.counts = {"2 b": 2 * MB}
    assert flash.wear().look().written_bytes == 42 * MB


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"day": "x"}', b'{"day": 1}'])
def test_a_damaged_count_costs_a_day_and_nothing_else(tmp_path, content):
    (tmp_path / "wear.json").write_bytes(content)
    assert Flash(tmp_path / "wear.json").wear().look().written_bytes == 0


def test_the_count_itself_is_written_rarely(tmp_path):
    flash = Flash(tmp_path / "wear.json")
    wear = flash.wear()
    stamp = (tmp_path / "wear.json").stat().st_mtime_ns
    for _ in range(50):
        flash.counts["1 a"] += MB
        flash.now_s += 10
        wear.look()
    assert (tmp_path / "wear.json").stat().st_mtime_ns == stamp
    flash.now_s += 600
    wear.look()
    assert json.loads((tmp_path / "wear.json").read_text())["written_bytes"] == 50 * MB


def test_a_disk_that_is_full_does_not_end_a_training(tmp_path):
    wear = Flash(tmp_path / "no such folder" / "wear.json").wear()
    wear.keep()
    assert wear.checkpoint_interval_s(MB, 30) >= 30


def test_checkpoints_get_rarer_as_the_bound_comes_near():
    flash = Flash(None)
    wear = flash.wear()
    flash.now_s = NOW - NOW % DAY_S + DAY_S / 2
    intervals = []
    for written_mb in (0, 50, 90, 98, 99.5, 200):
        flash.counts["1 a"] = int(written_mb * MB)
        intervals.append(wear.checkpoint_interval_s(MB, 30.0))
    assert intervals == [432.0, 864.0, 4320.0, 21600.0, float("inf"), float("inf")]


def test_without_a_bound_only_the_least_time_counts():
    flash = Flash(None, most_mb=0.0)
    flash.counts["1 a"] = 10**15
    assert flash.wear().checkpoint_interval_s(MB, 30.0) == 30.0


@given(st.integers(1, 10**7), st.floats(1, 1e9), st.floats(1, DAY_S), st.floats(1, 600))
def test_checkpoints_at_their_interval_stay_within_what_is_left(size, left, left_s, least_s):
    interval = interval_s(size, left, left_s, least_s)
    assert interval >= least_s
    assert left_s / interval * size <= left * (1 + 1e-9)


# Data use.


class Month:
    """A store, a link's traffic and a clock in a test's hands."""

    def __init__(self):
        self.store, self.traffic, self.now_s = Store.open(None), Traffic(), 1_795_000_000.0

    def data_use(self, most_mb=0.0):
        return DataUse(self.store, most_mb, lambda: self.traffic, lambda: self.now_s)


def test_both_directions_count_and_only_what_is_new():
    month = Month()
    data_use = month.data_use()
    month.traffic = Traffic(1000, 200)
    data_use.look()
    month.traffic = Traffic(1500, 200)
    assert (data_use.look().sent_bytes, data_use.look().received_bytes) == (1500, 200)
    data_use.add(0, 5_000_000)
    assert data_use.look().total_bytes == 1500 + 200 + 5_000_000


def test_the_months_count_outlives_a_restart_and_the_links_begins_anew():
    month = Month()
    first = month.data_use()
    month.traffic = Traffic(3 * MB, MB)
    first.look()
    month.traffic = Traffic()
    second = month.data_use()
    month.traffic = Traffic(10, 20)
    assert second.look().total_bytes == 4 * MB + 30
    assert used(month.store).total_bytes == 4 * MB


def test_it_is_written_down_by_the_megabyte_or_the_hour():
    month = Month()
    data_use = month.data_use()
    data_use.look()  # the month begins: that is written at once
    month.traffic = Traffic(900_000, 0)
    data_use.look()
    assert used(month.store).total_bytes == 0
    month.now_s += 3601
    data_use.look()
    assert used(month.store).total_bytes == 900_000
    month.traffic = Traffic(950_000, 0)
    data_use.look()
    assert used(month.store).total_bytes == 900_000
    data_use.keep()
    assert used(month.store).total_bytes == 950_000


def test_a_new_month_begins_at_nothing():
    month = Month()
    data_use = month.data_use(most_mb=1.0)
    month.traffic = Traffic(2 * MB, 0)
    assert data_use.is_spent
    month.now_s += 31 * DAY_S
    assert not data_use.is_spent
    month.traffic = Traffic(2 * MB + 7, 0)
    assert data_use.look().total_bytes == 7


def test_a_clock_that_runs_back_or_was_never_set_begins_no_month():
    month = Month()
    data_use = month.data_use(most_mb=1.0)
    month.traffic = Traffic(2 * MB, 0)
    data_use.look()
    for now_s in (month.now_s - 40 * DAY_S, 1000.0):
        month.now_s = now_s
        assert data_use.is_spent
        assert month.data_use(most_mb=1.0).is_spent


def test_without_a_bound_nothing_is_spent():
    month = Month()
    data_use = month.data_use()
    month.traffic = Traffic(10**15, 0)
    assert not data_use.is_spent


# Memory.


def manifest(folder, peak_bytes=None, batch=64):
    costs = None if peak_bytes is None else Costs(1, 1, peak_bytes)
    write_bundle(folder, costs=costs, training=TrainSpec(batch, "adam", ("moment1", "moment2")))
    found = load_bundle(folder).manifest
    assert isinstance(found, Manifest)
    return found


def test_a_batch_that_fits_is_left_alone(tmp_path):
    assert rows_within(manifest(tmp_path, 2 * MB), 64.0, 64) == 64


def test_a_batch_that_does_not_fit_gets_as_many_rows_as_do(tmp_path):
    found = manifest(tmp_path, FIXED + 64 * 100_000)
    assert rows_within(found, (FIXED + 20 * 100_000 + 10) / MB, 64) == 20
    assert rows_within(found, 0.001, 64) == 1


def test_without_a_bound_or_a_count_the_batch_is_what_it_was(tmp_path):
    assert rows_within(manifest(tmp_path / "a", 10**12), 0.0, 64) == 64
    assert rows_within(manifest(tmp_path / "b"), 1.0, 64) == 64


def test_lots_of_a_private_training_may_be_larger_than_a_batch(tmp_path):
    least = 4 * LAYOUT.size * 7
    assert rows_within(manifest(tmp_path, least + 64 * 1000), (least + 500 * 1000 + 10) / MB, 4096) == 500


@pytest.mark.parametrize("error", [StoreFullError, StoreUnwritableError])
def test_a_disk_that_takes_nothing_costs_the_count_no_more_than_a_power_cut_would(monkeypatch, error):
    month = Month()
    data_use = month.data_use()

    def refuse(store, key, value):
        raise error(store.path, "disk I/O error")

    with monkeypatch.context() as failing:
        failing.setattr(Store, "set_meta", refuse)
        month.traffic = Traffic(3 * MB, 0)
        assert data_use.look().total_bytes == 3 * MB
    assert used(month.store).total_bytes == 0
    data_use.look()
    assert used(month.store).total_bytes == 3 * MB
