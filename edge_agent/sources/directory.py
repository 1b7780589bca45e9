"""A folder that is watched: images and arrays are a sample each, lines of tables too.

    look: which files are there? --same size and time for settle_s--> read --deliver--> remember, move or delete

- A file that is still being written waits: it changes between two looks. One that changed while it was read is read
  again. Names that tools give to unfinished files (`.part`, `.tmp`, dot files) are left alone.
- A file is read once, over restarts too, until it is written anew; then it is another.
- A file that cannot be read is said once, and stays where it is.
- Files that settle together are read in the order in which they were written.

A sample is named after its file and its content: `scans/cat/17.png#5e1f0a2b`, and `...#5e1f0a2b:12` for line 12 of a
table. It was captured when its file was written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.sources.memory import SeenFiles
from edge_agent.sources.settings import DirectorySettings
from edge_agent.sources.source import Captured, Deliver, unix_ms
from fd_protocol.manifest import Task
from fd_runtime.samples import (
    ARRAY,
    UNREADABLE,
    DataError,
    LabelError,
    check_samples,
    class_number,
    is_one_sample,
    read_array,
    read_one,
    read_table,
)

_UNFINISHED = (".crdownload", ".part", ".partial", ".swp", ".tmp")
_TABLE_ENDS = (".csv", ".csv.gz")
_NAME_CHARACTERS = 300
"""Of a file's name in a sample's; its content tells the rest apart."""
_REMEMBER_EVERY = 100
"""Files of one look; a crash has so many read twice, and the store knows them by their names."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class _Stamp:
    changed_ns: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Stamp:
        return cls(status.st_mtime_ns, status.st_size)


class DirectorySource:
    """See the module.

    Args:
        name: of the source.
        settings: of the folder.
        task: what a sample is.
        seen: which files were read already.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        settings: DirectorySettings,
        task: Task,
        seen: SeenFiles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._settings, self._task, self._seen, self._clock = name, settings, task, seen, clock
        self._waiting: dict[Path, tuple[_Stamp, float]] = {}
        self._strangers: set[str] = set()

    def run(self, deliver: Deliver, stop: threading.Event) -> None:
        """See `Source.run`.

        Raises:
            OSError: there is no such folder.
            MissingExtraError: there is an image, and Pillow is not installed.
            StoreError: what was read cannot be remembered.
        """
        while not stop.is_set():
            self.look(deliver, stop)
            stop.wait(self._settings.poll_s)

    def look(self, deliver: Deliver, stop: threading.Event) -> None:
        """Read what has settled since the last look."""
        files = self._files()
        keys = {path: self._key(path, stamp) for path, stamp in files.items()}
        fresh = {path: stamp for path, stamp in files.items() if keys[path] not in self._seen}
        done: list[bytes] = []
        try:
            for path in self._settled(fresh):
                if stop.is_set():
                    break
                if self._take(path, fresh[path], deliver, stop):
                    done.append(keys[path])
                if len(done) >= _REMEMBER_EVERY:
                    self._seen.add(done)
                    done.clear()
        finally:
            self._seen.add(done)
        self._seen.keep_only(set(keys.values()))

    def _files(self) -> dict[Path, _Stamp]:
        root = self._settings.path
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder")
        found = {}
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if _is_sample(path.relative_to(root)):
                    try:
                        found[path] = _Stamp.of(path.stat())
                    except OSError:  # gone again, or a link to nowhere
                        continue
        return found

    def _key(self, path: Path, stamp: _Stamp) -> bytes:
        return self._seen.key(str(path.relative_to(self._settings.path)), stamp.changed_ns, stamp.size)

    def _settled(self, fresh: dict[Path, _Stamp]) -> list[Path]:
        """Return the files that have looked the same for long enough, in the order in which they were written."""
        now_s = self._clock()
        for path, stamp in fresh.items():
            known = self._waiting.get(path)
            if known is None or known[0] != stamp:
                self._waiting[path] = (stamp, now_s)
        self._waiting = {path: known for path, known in self._waiting.items() if path in fresh}
        settled = [path for path, (_, since_s) in self._waiting.items() if now_s - since_s >= self._settings.settle_s]
        return sorted(settled, key=lambda path: (fresh[path].changed_ns, path))

    def _take(self, path: Path, stamp: _Stamp, deliver: Deliver, stop: threading.Event) -> bool:
        """Read a file and deliver what is in it; return whether it is done with. One that `stop` ends comes again."""
        try:
            captured = list(self._read(path, stamp))
            if _Stamp.of(path.stat()) != stamp:
                return False
        except FileNotFoundError:
            return False
        except (DataError, OSError) as error:
            log.warning("source %s: %s", self._name, error)
            return True
        for one in captured:
            deliver(one)
            if stop.is_set():
                return False
        self._put_away(path)
        return True

    def _put_away(self, path: Path) -> None:
        try:
            match self._settings.done:
                case "delete":
                    path.unlink()
                case "move":
                    assert self._settings.done_folder is not None
                    target = self._settings.done_folder / path.relative_to(self._settings.path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, _free(target))
        except OSError as error:
            log.warning("source %s: %s stays where it is, and is remembered: %s", self._name, path, error)

    # What is in a file.

    def _read(self, path: Path, stamp: _Stamp) -> Iterator[Captured]:
        name, at_ms = self._sample_name(path), min(stamp.changed_ns // 1_000_000, unix_ms())
        for place, sample, label in self._samples(path):
            yield Captured(sample, f"{name}{place}", at_ms, label, self._name, can_wait=True)

    def _sample_name(self, path: Path) -> str:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        shown = str(path.relative_to(self._settings.path)).encode("utf-8", "replace").decode()[-_NAME_CHARACTERS:]
        return f"{self._name}/{shown}#{digest.hexdigest()[:8]}"

    def _samples(self, path: Path) -> Iterator[tuple[str, npt.NDArray[Any], int | None]]:
        """Yield the samples in a file: their place in it, and their label."""
        if path.name.lower().endswith(_TABLE_ENDS):
            yield from self._lines(path)
        elif path.suffix.lower() == ARRAY:
            samples, label = self._array(path), self._label_of(path)
            for place, sample in enumerate(samples):
                yield (f":{place}" if len(samples) > 1 else ""), sample, label
        else:
            yield "", read_one(path, self._task), self._label_of(path)

    def _lines(self, path: Path) -> Iterator[tuple[str, npt.NDArray[Any], int | None]]:
        try:
            table = read_table(path, self._task, self._settings.column)
        except UNREADABLE as error:
            raise DataError(path, error) from error
        check_samples(path, table.values, self._task)
        labels = table.labels or [""] * len(table.values)
        for line, sample, label in zip(table.lines, table.values, labels, strict=True):
            yield f":{line}", sample, self._number(label) if label.strip() else None

    def _array(self, path: Path) -> npt.NDArray[Any]:
        """Return the samples in a `.npy`, which holds one or several."""
        try:
            array = read_array(path)
        except UNREADABLE as error:
            raise DataError(path, error) from error
        samples = array[None] if array.shape == self._task.sample_shape else array
        check_samples(path, samples, self._task)
        return np.ascontiguousarray(samples)

    def _label_of(self, path: Path) -> int | None:
        *folders, _ = path.relative_to(self._settings.path).parts
        return self._number(folders[0]) if folders and self._settings.labels == "folder" else None

    def _number(self, label: str) -> int | None:
        try:
            return class_number(label, self._task)
        except LabelError as error:
            if label not in self._strangers and len(self._strangers) < _REMEMBER_EVERY:
                self._strangers.add(label)
                log.warning("source %s: %s: such samples come without a label", self._name, error)
            return None


def _is_sample(name: Path) -> bool:
    is_table = name.name.lower().endswith(_TABLE_ENDS) and not any(part.startswith(".") for part in name.parts)
    is_unfinished = name.suffix.lower() in _UNFINISHED or name.name.endswith("~")
    return (is_table or is_one_sample(name)) and not is_unfinished


def _free(path: Path) -> Path:
    """Return `path`, or one like it that is not taken."""
    number, free = 1, path
    while free.exists():
        free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return free
