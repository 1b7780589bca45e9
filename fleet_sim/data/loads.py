"""What 27 buildings drew from the grid in 2016, a quarter of an hour at a time: homes, trades, farms (SimBench).

The Python package `simbench` carries them; read is its wheel, as `pip download --no-deps simbench` gets it, or a
LoadProfile.csv. A sample is a day of quarter hours, and its class says in which third of that day's 24 hours the hour
after it lies: `low`, `usual` or `high`. Whoever has the readings knows it an hour later: nobody has to label anything.

Profiles are relative; here each is divided by its mean over the year, as a home's plug is by the home's mean.
Deliberately absent: whole grids, charging points, heat pumps and batteries, which the file has too.
"""

from __future__ import annotations

import io
import re
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, I64
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.published import AbsentDataError, Shelf
from model_export.samples import DataError

THIRDS = ("low", "usual", "high")
HOURS, QUARTERS = 24, 4
_IN_WHEEL = "simbench/networks/1-complete_data-mixed-all-0-sw/LoadProfile.csv"
_BUILDING = re.compile(r"((?:BL|WB|[GHL]\d)-[A-Z])_pload")
"""G trades, H homes, L farms, by the German standard profile that each resembles; BL and WB as SimBench calls them."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Load:
    """`power` [quarter hours] of one building, its mean 1."""

    building: str
    power: F32


def building_load(shelf: Shelf, *, stride_h: int = 6) -> Dataset:
    """Return days of buildings, each with the hour after it.

    Args:
        shelf: names the file.
        stride_h: hours from the start of a day to the next one's.

    Raises:
        AbsentDataError: no file is named.
        DataError: it is neither SimBench's wheel nor its table.
    """
    if stride_h < 1:
        raise InvalidValueError("a stride is at least an hour")
    path = shelf.file
    if path is None:
        raise AbsentDataError(
            "building-load: name the wheel that `pip download --no-deps simbench` gets, or its LoadProfile.csv"
        )
    whole = loads(path)
    pieces = [days_of(load.power, stride_h) for load in whole]
    days, thirds = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Dataset(
        name="building-load",
        task=Task(THIRDS, (1, HOURS * QUARTERS), "float32"),
        samples=days[:, None, :],
        labels=thirds,
        groups=np.repeat(np.arange(len(whole)), [len(own) for _, own in pieces]),
        group_names=tuple(load.building for load in whole),
        source="SimBench (Meinecke et al. 2020), simbench.net; Python package simbench",
        licence="ODbL-1.0",
    )


def loads(path: Path) -> list[Load]:
    """Return the buildings, in the order of their names.

    Raises:
        DataError: there is none, or the file is no such file.
    """
    try:
        with closing(_table(path)) as file:
            columns = file.readline().strip().split(";")
            found = sorted((match[1], place) for place, name in enumerate(columns) if (match := _BUILDING.match(name)))
            if not found:
                raise InvalidValueError("no building")
            power = np.loadtxt(file, np.float32, delimiter=";", usecols=[place for _, place in found], ndmin=2)
    except _UNREADABLE as error:
        raise DataError(path, f"is no form of SimBench's load profiles: {error}") from error
    return [Load(name, own / own.mean()) for (name, _), own in zip(found, power.T, strict=True)]


def days_of(power: F32, stride_h: int = 1) -> tuple[F32, I64]:
    """Return the days in a series, one every `stride_h` hours, and the third in which the hour after each lies.

    Args:
        power: [quarter hours].
        stride_h: hours from a day to the next.

    Returns:
        Days [n, 96], and thirds [n]: 0 where less than a third of the day's hours drew less than the hour after it.
    """
    whole = len(power) // QUARTERS
    if whole <= HOURS:
        return np.empty((0, HOURS * QUARTERS), np.float32), np.empty(0, np.int64)
    hours = power[: whole * QUARTERS].reshape(whole, QUARTERS).mean(1)
    days = np.lib.stride_tricks.sliding_window_view(power, HOURS * QUARTERS)[: (whole - HOURS) * QUARTERS]
    past = np.lib.stride_tricks.sliding_window_view(hours, HOURS)[:-1]
    thirds = third_of(past, hours[HOURS:])
    return np.ascontiguousarray(days[:: QUARTERS * stride_h]), thirds[::stride_h]


def third_of(past: F32, after: F32) -> I64:
    """Return 0, 1 or 2 for each row of hours [n, 24] and the hour after it [n]: how many of them drew less."""
    below = (past < after[:, None]).sum(1, dtype=np.int64)
    thirds: I64 = np.minimum(below * len(THIRDS) // past.shape[1], len(THIRDS) - 1)
    return thirds


def _table(path: Path) -> IO[str]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return io.StringIO(archive.read(_IN_WHEEL).decode())
    return path.open()
