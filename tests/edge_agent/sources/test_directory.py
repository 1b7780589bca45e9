"""Files in a folder become samples once they are whole, once each, as the workstation reads them."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from edge_agent.sources.directory import DirectorySource
from edge_agent.sources.memory import Memory
from edge_agent.sources.settings import DirectorySettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.extras import MissingExtraError
from model_export.samples import read_samples

IMAGES = Task(("cat", "dog"), (1, 4, 6), "uint8")
TABLE = Task(("well", "ill"), (2,), "float32", columns=("age", "pressure"))


class Folder:
    """A watched folder, and a clock that a test turns."""

    def __init__(self, tmp_path, task=IMAGES, **settings):
        self.root, self.task, self.now_s = tmp_path / "in", task, 100.0
        self.root.mkdir()
        self.memory_path = tmp_path / "sources.db"
        self.settings = DirectorySettings(self.root, **settings)
        self.start()

    def start(self):
        """As after a crash: nothing was closed."""
        memory = Memory(self.memory_path).of("scans")
        self.source = DirectorySource("scans", self.settings, self.task, memory, clock=lambda: self.now_s)
        return self

    def look(self, after_s=0.0):
        self.now_s += after_s
        captured = []
        self.source.look(captured.append, threading.Event())
        return captured

    def settle(self):
        """Two looks, far enough apart."""
        return self.look() + self.look(2.0)

    def names(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def picture(path, shade, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)


def ids(captured):
    return [one.sample_id.partition("#")[0] for one in captured]


def test_images_and_arrays_are_samples_as_the_workstation_reads_them(tmp_path):
    folder = Folder(tmp_path)
    picture(folder.root / "a.png", 7, size=(30, 10))
    np.save(folder.root / "b.npy", np.full((1, 4, 6), 9, np.uint8))
    captured = folder.settle()
    expected = read_samples(folder.root, IMAGES).values
    np.testing.assert_array_equal(np.stack([one.sample for one in captured]), expected)
    assert ids(captured) == ["scans/a.png", "scans/b.npy"]
    assert {(one.label, one.source) for one in captured} == {(None, "scans")}


def test_several_samples_may_lie_in_one_array(tmp_path):
    folder = Folder(tmp_path)
    np.save(folder.root / "a.npy", np.arange(72, dtype=np.uint8).reshape(3, 1, 4, 6))
    captured = folder.settle()
    assert [one.sample_id[-2:] for one in captured] == [":0", ":1", ":2"]
    assert [one.sample[0, 0, 0] for one in captured] == [0, 24, 48]


def test_a_folder_may_name_the_class_of_what_is_in_it(tmp_path, caplog):
    folder = Folder(tmp_path, labels="folder")
    for name in ("cat/1.png", "dog/deep/er/2.png", "3.png", "unsorted/4.png", "unsorted/5.png"):
        picture(folder.root / name, 5)
    assert {ids([one])[0]: one.label for one in folder.settle()} == {
        "scans/cat/1.png": 0,
        "scans/dog/deep/er/2.png": 1,
        "scans/3.png": None,
        "scans/unsorted/4.png": None,
        "scans/unsorted/5.png": None,
    }
    assert caplog.text.count("'unsorted' is no class") == 1


def test_folders_are_no_labels_unless_the_settings_say_so(tmp_path):
    folder = Folder(tmp_path)
    picture(folder.root / "cat/1.png", 5)
    assert [one.label for one in folder.settle()] == [None]


def test_lines_of_a_table_are_samples(tmp_path):
    folder = Folder(tmp_path, TABLE, column="sick")
    (folder.root / "a.csv").write_text("pressure,note,age,sick\n120,x,50,ill\n,y,40,\n90,z,30,dead\n")
    captured = folder.settle()
    np.testing.assert_array_equal(
        np.stack([one.sample for one in captured]), np.array([[50, 120], [40, np.nan], [30, 90]], np.float32)
    )
    assert [one.label for one in captured] == [1, None, None]
    assert [one.sample_id[-2:] for one in captured] == [":2", ":3", ":4"]


def test_a_file_that_is_still_being_written_waits(tmp_path):
    folder = Folder(tmp_path)
    picture(tmp_path / "whole.png", 5)
    data = (tmp_path / "whole.png").read_bytes()
    with (folder.root / "a.png").open("wb", buffering=0) as file:
        for start in range(0, len(data), 20):
            file.write(data[start : start + 20])
            assert folder.look(2.0) == []
    assert ids(folder.look(2.0)) == ["scans/a.png"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    picture(folder.root / "a.png", 5)
    read = DirectorySource._samples

    def read_and_change(source, path):
        yield from read(source, path)
        monkeypatch.setattr(DirectorySource, "_samples", read)
        picture(folder.root / "a.png", 200)
        os.utime(folder.root / "a.png", (1, 1))

    monkeypatch.setattr(DirectorySource, "_samples", read_and_change)
    assert folder.settle() == []
    assert [one.sample[0, 0, 0] for one in folder.settle()] == [200]


@pytest.mark.parametrize(
    "name", ["a.png.part", "a.tmp", ".a.png", ".hidden/a.png", "a.png~", "notes.txt", "a.csv.part"]
)
def test_what_is_unfinished_hidden_or_something_else_is_left_alone(tmp_path, name):
    folder = Folder(tmp_path)
    (folder.root / name).parent.mkdir(exist_ok=True)
    (folder.root / name).write_bytes(b"x")
    (folder.root / "folder.png").mkdir()
    assert folder.settle() == []
    assert len(folder.source._seen) == 0


def test_a_file_is_read_once_over_restarts_until_it_is_written_anew(tmp_path):
    folder = Folder(tmp_path)
    picture(folder.root / "latest.png", 5)
    (first,) = folder.settle()
    assert folder.settle() == []
    assert folder.start().settle() == []
    picture(folder.root / "latest.png", 200)
    (second,) = folder.settle()
    assert ids([first]) == ids([second]) == ["scans/latest.png"]
    assert first.sample_id != second.sample_id


def test_the_same_file_read_twice_has_the_same_name(tmp_path):
    folder = Folder(tmp_path)
    picture(folder.root / "a.png", 5)
    (first,) = folder.settle()
    folder.memory_path.unlink()
    (second,) = folder.start().settle()
    assert first.sample_id == second.sample_id


def test_the_memory_is_no_larger_than_the_folder_and_tells_no_names(tmp_path):
    folder = Folder(tmp_path)
    for number in range(20):
        picture(folder.root / f"secret-{number}.png", number)
    folder.settle()
    assert len(folder.source._seen) == 20
    assert all(b"secret" not in file.read_bytes() for file in tmp_path.glob("sources.db*"))
    for number in range(15):
        (folder.root / f"secret-{number}.png").unlink()
    folder.look()
    assert len(folder.start().source._seen) == 5


def test_read_files_may_be_moved(tmp_path):
    folder = Folder(tmp_path, done="move", done_folder=tmp_path / "done")
    picture(folder.root / "cat/1.png", 5)
    assert len(folder.settle()) == 1
    picture(folder.root / "cat/1.png", 6)
    assert len(folder.settle()) == 1
    assert folder.names() == []
    assert sorted(path.name for path in (tmp_path / "done" / "cat").iterdir()) == ["1-1.png", "1.png"]


def test_read_files_may_be_deleted(tmp_path):
    folder = Folder(tmp_path, done="delete")
    picture(folder.root / "1.png", 5)
    assert len(folder.settle()) == 1
    assert folder.names() == []
    assert folder.settle() == []


def test_a_file_that_cannot_be_put_away_is_remembered(tmp_path, monkeypatch, caplog):
    folder = Folder(tmp_path, done="delete")
    picture(folder.root / "1.png", 5)

    def refuse(_self):
        raise PermissionError("read-only")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert len(folder.settle()) == 1
    assert folder.settle() == []
    assert "stays where it is, and is remembered" in caplog.text


def test_a_broken_file_is_said_once_stays_and_costs_no_other(tmp_path, caplog):
    folder = Folder(tmp_path, done="delete")
    picture(folder.root / "good.png", 5)
    (folder.root / "bad.png").write_bytes(b"no image")
    np.save(folder.root / "wrong.npy", np.zeros((7, 7), np.uint8))
    (folder.root / "bad.csv").write_text("a,b\n1\n")
    assert ids(folder.settle()) == ["scans/good.png"]
    assert folder.settle() == []
    assert folder.names() == ["bad.csv", "bad.png", "wrong.npy"]
    for name in ("bad.png", "wrong.npy", "bad.csv"):
        assert sum(name in record.message for record in caplog.records) == 1


def test_files_come_in_the_order_in_which_they_were_written(tmp_path):
    folder = Folder(tmp_path)
    for number, name in enumerate(("c.png", "a.png", "b.png")):
        picture(folder.root / name, 5)
        os.utime(folder.root / name, (1_700_000_000 + number,) * 2)
    captured = folder.settle()
    assert ids(captured) == ["scans/c.png", "scans/a.png", "scans/b.png"]
    assert [one.at_ms for one in captured] == [1_700_000_000_000 + 1000 * number for number in range(3)]


def test_a_file_of_tomorrow_was_captured_now(tmp_path):
    folder = Folder(tmp_path)
    picture(folder.root / "a.png", 5)
    os.utime(folder.root / "a.png", (time.time() + 86_400,) * 2)
    (one,) = folder.settle()
    assert abs(one.at_ms - time.time() * 1000) < 60_000


def test_without_pillow_the_source_says_so_and_forgets_nothing(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    picture(folder.root / "a.png", 5)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "PIL", None)
        with pytest.raises(MissingExtraError, match="agent-images"):
            folder.settle()
    assert len(folder.settle()) == 1


def test_a_folder_that_is_not_there_is_an_error_that_may_pass(tmp_path):
    folder = Folder(tmp_path)
    folder.root.rmdir()
    with pytest.raises(FileNotFoundError, match="in: no such folder"):
        folder.look()
    folder.root.mkdir()
    assert folder.look() == []


def test_it_runs_until_it_is_stopped(tmp_path):
    folder = Folder(tmp_path, poll_s=0.01, settle_s=0.05)
    folder.source._clock = time.monotonic
    picture(folder.root / "a.png", 5)
    stop, captured = threading.Event(), []

    def deliver(one):
        captured.append(one)
        stop.set()

    thread = threading.Thread(target=folder.source.run, args=(deliver, stop))
    thread.start()
    thread.join(60)
    assert (thread.is_alive(), len(captured)) == (False, 1)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"done": "move"}, "done_folder is where"),
        ({"done_folder": "x"}, "done_folder is where"),
        ({"done": "move", "done_folder": "in/done"}, "lies outside of path"),
        ({"poll_s": 0.0}, "poll_s is over 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, complaint):
    if "done_folder" in settings:
        settings["done_folder"] = tmp_path / settings["done_folder"]
    with pytest.raises(InvalidValueError, match=complaint):
        DirectorySettings(tmp_path / "in", **settings)


def test_a_file_that_a_stop_cuts_short_comes_again_and_nothing_of_it_may_be_dropped(tmp_path):
    folder = Folder(tmp_path, TABLE)
    (folder.root / "day.csv").write_text("age,pressure\n" + "".join(f"{line},1\n" for line in range(5)))
    folder.look()
    folder.now_s += 2.0
    stop, captured = threading.Event(), []

    def deliver(one):
        captured.append(one)
        if len(captured) == 3:
            stop.set()

    folder.source.look(deliver, stop)
    assert len(captured) == 3
    assert all(one.can_wait for one in captured)
    again = folder.start().settle()
    assert [one.sample_id for one in again[:3]] == [one.sample_id for one in captured]
    assert len(again) == 5
