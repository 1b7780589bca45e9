"""Recorded samples from images, arrays and tables, as the task records them: for the workstation and for devices.

    1.png 1.npy                a sample
    patients.csv, .csv.gz      a head line, then a sample a line; one column may hold the class
    letters.txt                a text in UTF-8, where tokens are words: a sample and its label for each word

Labels are class names of the task or their numbers. An empty cell of a table is NaN: a value that is missing. Where
the task names its columns, a table's are found by name, in any order and among others; else they count from the left.
"""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime import images
from fd_runtime.config import EX_DATAERR
from fd_runtime.images import ImageError, read_image
from fd_runtime.models.model import I32, I64
from fd_runtime.words import Vocabulary

ARRAY, TABLES, TEXT = ".npy", (".csv", ".gz"), ".txt"
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    csv.Error,
    zlib.error,
    zipfile.BadZipFile,
    ImageError,
)
"""What the readers of foreign files raise, a file being broken in as many ways."""


class DataError(FedistillError):
    """A file of samples cannot be read, or holds something else; names it."""

    exit_code = EX_DATAERR

    def __init__(self, path: Path, problem: object) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


class LabelError(FedistillError):
    """A label is no class of the task."""

    exit_code = EX_DATAERR


def is_one_sample(name: Path) -> bool:
    """Whether a file of this name is read as one sample. Hidden files are none: tools leave them there."""
    is_hidden = any(part.startswith(".") for part in name.parts)
    return name.suffix.lower() in (*images.SUFFIXES, ARRAY) and not is_hidden


def read_one(path: Path, task: Task) -> npt.NDArray[np.generic]:
    """Return the sample in an image or a `.npy`, of the task's shape and type.

    Raises:
        DataError: it cannot be read, or holds something else.
        MissingExtraError: an image, and Pillow is not installed.
    """
    try:
        is_array = path.suffix.lower() == ARRAY
        value = read_array(path) if is_array else recorded(path, read_image(path, task), task)
    except UNREADABLE as error:
        raise DataError(path, error) from error
    check_samples(path, value[None], task)
    return value


def read_text(path: Path, task: Task) -> tuple[I32, I64]:
    """Return the samples in a text, int32 [n, length], and the words that come next, int64 [n].

    Raises:
        DataError: it cannot be read, is no UTF-8, or the task's tokens are no words.
    """
    try:
        return Vocabulary.of(task).rows(path.read_text("utf-8"))
    except (OSError, ValueError, InvalidValueError) as error:
        raise DataError(path, error) from error


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return what `np.save` wrote; raises many things, see `UNREADABLE`."""
    with path.open("rb") as file:  # np.load would take a zip, whatever its name
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Samples [n, *sample_shape], a line each, and what stands in the column of labels, where there is one.

    `lines` are their numbers in the file, from 1, as an editor counts them.
    """

    values: npt.NDArray[np.generic]
    labels: Sequence[str] | None
    lines: Sequence[int]


def read_table(path: Path, task: Task, label: str) -> Table:
    """Return the table in a `.csv` or `.csv.gz`; its samples are of the task's type, and not checked any further.

    Args:
        path: of the file.
        task: what a sample is.
        label: name of the column of labels; a table need not have it.

    Raises:
        DataError: lines of other lengths, cells that are no numbers, columns that are missing, or no head line.
        OSError, ValueError, csv.Error, EOFError, zlib.error: it cannot be read (`UNREADABLE`).
    """
    head, lines = _table_of(path)
    columns = _places(path, head, task, label)
    cells = [[_number(path, line, place, head) for place in columns] for line in lines]
    values = np.array(cells, np.float64).reshape(len(lines), *task.sample_shape)
    labels = [line.cells[head.index(label)] for line in lines] if label in head else None
    return Table(recorded(path, values, task), labels, [line.number for line in lines])


def _places(path: Path, head: Sequence[str], task: Task, label: str) -> list[int]:
    """Return in which columns the numbers of a sample stand."""
    if task.columns is not None and task.time_axis is None:
        missing = [name for name in task.columns if name not in head]
        if missing:
            raise DataError(path, f"has no column {missing[0]!r}")
        return [head.index(name) for name in task.columns]
    places = [place for place, name in enumerate(head) if name != label]
    if len(places) != math.prod(task.sample_shape):
        held = f"{len(places)} columns besides the label {label!r}"
        raise DataError(path, f"has {held}, a sample of {list(task.sample_shape)} has {math.prod(task.sample_shape)}")
    return places


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    cells: list[str]


def _table_of(path: Path) -> tuple[list[str], list[_Line]]:
    """The head line, and all others that are not empty; a spreadsheet's byte order mark is no part of a name."""
    options: Any = {"newline": "", "encoding": "utf-8-sig"}
    with gzip.open(path, "rt", **options) if path.suffix == ".gz" else path.open(**options) as file:
        reader = csv.reader(file)
        lines = [_Line(reader.line_num, cells) for cells in reader if cells]
    if not lines:
        raise DataError(path, "is empty: a head line names the columns")
    head, *rest = lines
    for line in rest:
        if len(line.cells) != len(head.cells):
            raise DataError(path, f"line {line.number} has {len(line.cells)} cells, the head line {len(head.cells)}")
    return head.cells, rest


def _number(path: Path, line: _Line, place: int, head: Sequence[str]) -> float:
    cell = line.cells[place]
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise DataError(path, f"line {line.number}, column {head[place]!r}: {cell!r} is no number") from None


def recorded(path: Path, values: npt.NDArray[Any], task: Task) -> npt.NDArray[np.generic]:
    """Return the values in the task's type.

    Raises:
        DataError: it does not hold them.
    """
    dtype = np.dtype(task.sample_dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # what does not fit is told below
        cast = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, values):
        raise DataError(path, f"a value is no {dtype}")
    return cast


def check_samples(path: Path, values: npt.NDArray[np.generic], task: Task) -> None:
    """Check that `values` [n, ...] are samples of the task.

    Raises:
        DataError: another shape or type, an infinite value, or a token beyond the vocabulary.
    """
    if values.shape[1:] != task.sample_shape or values.dtype != np.dtype(task.sample_dtype):
        expected = f"{task.sample_dtype} [n, {', '.join(map(str, task.sample_shape))}]"
        raise DataError(path, f"expected samples {expected}, found {values.dtype} {list(values.shape)}")
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise DataError(path, f"sample {int(np.argwhere(np.isinf(values))[0, 0])} holds an infinite value")
    if task.vocabulary is not None and len(values) and not _are_tokens(values, task.vocabulary):
        raise DataError(path, f"tokens must lie from 0 to {task.vocabulary - 1}")


def _are_tokens(values: npt.NDArray[Any], vocabulary: int) -> bool:
    return bool(values.min() >= 0 and values.max() < vocabulary)


def class_number(label: object, task: Task) -> int:
    """Return the number of a class from its name or its number. Where names are numbers themselves, text is a name.

    Raises:
        LabelError: the task has no such class.
    """
    text = str(label).strip()
    if isinstance(label, str) and text in task.classes:
        return task.classes.index(text)
    number = _number_in(text)
    if number is None or (isinstance(label, str) and any(_number_in(name) is not None for name in task.classes)):
        raise LabelError(f"{text[:64]!r} is no class of the task")
    if not number.is_integer() or not 0 <= number < len(task.classes):
        raise LabelError(f"label {text[:64]} is no integer from 0 to {len(task.classes) - 1}")
    return int(number)


def _number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def class_numbers(path: Path, labels: Sequence[Any], task: Task, count: int) -> I64:
    """Return labels as class numbers int64 [count]: all by names, where one is a name, else all by numbers.

    Raises:
        DataError: there are fewer or more than `count`, or one is no class.
    """
    if len(labels) != count:
        raise DataError(path, f"{count} samples but {len(labels)} labels")
    places = {name: number for number, name in enumerate(task.classes)}
    if any(isinstance(label, str) and label.strip() in places for label in labels):
        unknown = sorted({str(label) for label in labels if str(label).strip() not in places})
        if unknown:
            raise DataError(path, f"{unknown[0]!r} is no class of the task")
        return np.array([places[label.strip()] for label in labels], np.int64)
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError as error:
        raise DataError(path, f"a label is neither a class of the task nor a number: {error}") from error
    if not ((numbers == numbers.astype(np.int64)) & (numbers >= 0) & (numbers < len(places))).all():
        raise DataError(path, f"a label is no integer from 0 to {len(places) - 1}")
    return numbers.astype(np.int64)
