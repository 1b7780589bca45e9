"""What both sides read samples by; whole files and folders are in tests/model_export/test_samples.py."""

from __future__ import annotations

import numpy as np
import pytest

from fd_protocol.manifest import Task
from fd_runtime.samples import DataError, LabelError, class_number, read_table

POWER = Task(("off", "on"), (2,), "float32", columns=("volts", "amps"))
DIGITS = Task(("0", "1", "3"), (2,), "float32")


def table(path, text):
    path.write_text(text)
    return path


def test_columns_of_a_table_are_found_by_name(tmp_path):
    path = table(tmp_path / "a.csv", "amps,when,y,volts\n1.5,noon,on,230\n\n2.5,night,off,229\n")
    found = read_table(path, POWER, "y")
    np.testing.assert_array_equal(found.values, [[230, 1.5], [229, 2.5]])
    assert (found.labels, found.lines) == (["on", "off"], [2, 4])


def test_a_table_without_a_column_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no column 'amps'"):
        read_table(table(tmp_path / "a.csv", "volts,Amps\n1,2\n"), POWER, "y")


@pytest.mark.parametrize(
    ("label", "task", "number"),
    [
        ("on", POWER, 1),
        (" on ", POWER, 1),
        ("1", POWER, 1),
        (0, POWER, 0),
        ("1.0", POWER, 1),
        ("3", DIGITS, 2),
        (2, DIGITS, 2),
    ],
)
def test_a_label_is_a_name_or_a_number(label, task, number):
    assert class_number(label, task) == number


@pytest.mark.parametrize(
    ("label", "task"),
    [("maybe", POWER), (2, POWER), ("0.5", POWER), (-1, POWER), ("2", DIGITS), ("nan", POWER), ("", POWER)],
)
def test_any_other_label_is_refused(label, task):
    with pytest.raises(LabelError):
        class_number(label, task)
