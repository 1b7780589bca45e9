"""MotionSense: what a phone in the trouser pocket of 24 people felt while they walked, sat, climbed; 50 Hz.

Three forms are read: the zip of its authors, an npz of whole recordings, and an npz of ready windows. A window lies in
one recording, so it has one person and one activity. Samples are [channels, length], float32.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, I64
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.published import AbsentDataError, Shelf
from model_export.samples import DataError

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
_URL = "https://github.com/mmalekzadeh/motion-sense/raw/master/data/A_DeviceMotion_data.zip"
ACTIVITIES = ("dws", "ups", "wlk", "jog", "sit", "std")
_COLUMNS = tuple(f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz")
_RECORDING = re.compile(r"(?:^|/)([a-z]{3})_(\d+)/sub_(\d+)\.csv$")


@dataclass(frozen=True, slots=True)
class Recording:
    """`signals` [time, channels] of one person doing one thing."""

    signals: F32
    activity: int
    subject: int


def motion_sense(shelf: Shelf, *, length: int = 128, stride: int = 64) -> Dataset:
    """Return windows of recordings.

    Args:
        shelf: names the file.
        length: of a window, in 1/50 s; an npz of ready windows has its own.
        stride: from the start of a window to the next one's.

    Raises:
        AbsentDataError: no file is named.
        DataError: it has none of the three forms.
    """
    if length < 1 or stride < 1:
        raise InvalidValueError("a window's length and stride are at least 1")
    path = shelf.file
    if path is None:
        raise AbsentDataError(f"motion-sense: name the file that you downloaded from {_URL}")
    try:
        if path.suffix == ".zip":
            return _windowed(_some(_recordings_of_zip(path)), length, stride)
        with np.load(path, allow_pickle=False) as arrays:
            if "windows" in arrays:
                return _of_windows(arrays)
            return _windowed(_some(_recordings_of_npz(arrays)), length, stride)
    except _UNREADABLE as error:
        raise DataError(path, f"is no form of MotionSense: {error}") from error


def recordings(path: Path) -> list[Recording]:
    """Return whole recordings, in the order of the file: what a phone would say one reading after another.

    Raises:
        DataError: the file holds none: it is no form of MotionSense, or one of ready windows.
    """
    try:
        if path.suffix == ".zip":
            return _some(_recordings_of_zip(path))
        with np.load(path, allow_pickle=False) as arrays:
            return _some(_recordings_of_npz(arrays))
    except _UNREADABLE as error:
        raise DataError(path, f"holds no recordings of MotionSense: {error}") from error


def windows_of(signals: F32, length: int, stride: int) -> F32:
    """Return the windows [n, channels, length] of signals [time, channels]; what is left at the end is dropped."""
    if len(signals) < length:
        return np.empty((0, signals.shape[1], length), np.float32)
    return np.lib.stride_tricks.sliding_window_view(signals, length, axis=0)[::stride]


def _recordings_of_zip(path: Path) -> Iterator[Recording]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if (match := _RECORDING.search(name)) is not None:
                text = archive.read(name).decode()
                head = [cell.strip('"') for cell in text.partition("\n")[0].strip().split(",")]
                places = [head.index(column) for column in _COLUMNS]
                table = np.loadtxt(io.StringIO(text), np.float32, delimiter=",", skiprows=1, usecols=places, ndmin=2)
                yield Recording(table, ACTIVITIES.index(match[1]), int(match[3]))


def _recordings_of_npz(arrays: Any) -> Iterator[Recording]:
    """`signals` are all recordings after one another; a row of `trial` is activity, trial, subject, rows."""
    signals, trials = arrays["signals"].astype(np.float32), arrays["trial"]
    ends = np.cumsum(trials[:, 3])
    if ends[-1] != len(signals):
        raise InvalidValueError(f"{len(signals)} rows of signals, but trials of {ends[-1]}")
    for piece, (activity, _, subject, _) in zip(np.split(signals, ends[:-1]), trials.tolist(), strict=True):
        yield Recording(piece, activity, subject)


def _some(found: Iterator[Recording]) -> list[Recording]:
    if not (whole := list(found)):
        raise InvalidValueError("no recording")
    return whole


def _windowed(whole: list[Recording], length: int, stride: int) -> Dataset:
    pieces = [windows_of(recording.signals, length, stride) for recording in whole]
    counts = [len(piece) for piece in pieces]
    activity = np.repeat([recording.activity for recording in whole], counts)
    return _dataset(np.concatenate(pieces), activity, np.repeat([r.subject for r in whole], counts))


def _of_windows(arrays: Any) -> Dataset:
    windows = (arrays["windows"] * arrays["scale"]).astype(np.float32)
    return _dataset(windows.transpose(0, 2, 1), arrays["activity"], arrays["subject"])


def _dataset(windows: F32, activity: I64, subject: I64) -> Dataset:
    subjects, groups = np.unique(subject, return_inverse=True)
    return Dataset(
        name="motion-sense",
        task=Task(ACTIVITIES, windows.shape[1:], "float32"),
        samples=np.ascontiguousarray(windows),
        labels=activity.astype(np.int64),
        groups=groups.astype(np.int64),
        group_names=tuple(f"subject {number}" for number in subjects),
        source="Malekzadeh et al. 2019, github.com/mmalekzadeh/motion-sense",
        licence="MIT",
    )
