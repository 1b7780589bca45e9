"""Files change whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fd_runtime.files import destroy, new_file, remove_leftovers, write_atomically


def test_a_file_is_replaced_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "value"
    write_atomically(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "value"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_a_file_that_is_destroyed_is_written_over_to_its_end(tmp_path, size):
    path, was = tmp_path / "secret", tmp_path / "was"
    path.write_bytes(bytes(size))
    was.hardlink_to(path)
    destroy(path)
    assert not path.exists()
    left = was.read_bytes()
    assert len(left) == size
    assert bytes(32) not in left


def cut_short(path, monkeypatch):
    """A process that dies between a temporary file and its rename leaves it there."""
    before = set(path.parent.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(SystemExit))
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_atomically(path, b"never in place")
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_what_a_power_cut_left_of_a_file_goes_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "[value]"
    others = [tmp_path / "[value].progress", tmp_path / ".value", tmp_path / ".[value].old", tmp_path / ".[value]"]
    for other in (path, *others):
        write_atomically(other, b"kept")
    others.append(cut_short(tmp_path / "[value].progress", monkeypatch))
    cut_short(path, monkeypatch)
    cut_short(path, monkeypatch)
    remove_leftovers(tmp_path, "[value]")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_what_power_cuts_left_in_a_folder_goes_whatever_its_name(tmp_path, monkeypatch):
    kept = tmp_path / ".hidden"
    kept.write_bytes(b"kept")
    for name in ("0001", "a b", "x.y"):
        cut_short(tmp_path / name, monkeypatch)
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_missing_folder_is_the_callers_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "value", b"")


def test_a_secret_is_never_readable_by_others_while_it_is_written(tmp_path, monkeypatch):
    modes: list[int] = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        modes.append(self.stat().st_mode & 0o777)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    write_atomically(tmp_path / "key", b"secret", mode=0o600)
    assert modes == [0o600]


def fill(path, *, fail=False):
    with new_file(path) as part:
        part.write_bytes(b"whole")
        part.with_name(f"{part.name}-wal").write_bytes(b"beside it")
        if fail:
            raise ValueError("half")


@pytest.mark.parametrize("name", ["value", "va[l]ue*"])
def test_a_new_file_has_its_name_when_it_is_whole_and_nothing_stays_beside_it(tmp_path, name):
    with new_file(tmp_path / name) as part:
        assert not (tmp_path / name).exists()
        part.write_bytes(b"whole")
        part.with_name(f"{part.name}-wal").write_bytes(b"beside it")
    assert (tmp_path / name).read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_new_file_that_was_not_finished_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="half"):
        fill(tmp_path / "value", fail=True)
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_not_written_over_an_old_one(tmp_path):
    (tmp_path / "value").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        fill(tmp_path / "value")
    assert (tmp_path / "value").read_bytes() == b"old"
