"""Golden vectors from a stranger are those of the bundle's task, or refused; no array is larger than their bytes."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import DecodeError
from fd_protocol.manifest import Task
from fd_runtime.models.golden import Golden

TASK = Task(("a", "b", "c"), (6,), "uint8")
GOLDEN = Golden(
    np.arange(48, dtype=np.uint8).reshape(8, 6),
    np.arange(8) % 3,
    np.ones((8, 3), np.float32),
    np.ones(3, np.float32),
)
DATA = GOLDEN.to_bytes()


def test_golden_vectors_survive_their_bytes():
    again = Golden.from_bytes(DATA, TASK)
    for name in ("samples", "labels", "logits", "losses"):
        np.testing.assert_array_equal(getattr(again, name), getattr(GOLDEN, name))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("samples", np.zeros((8, 7), np.uint8)),
        ("samples", np.zeros((8, 6), np.float32)),
        ("samples", np.zeros((7, 6), np.uint8)),
        ("labels", np.full(8, 3)),
        ("labels", np.full(8, -1)),
        ("labels", np.zeros(0, np.int64)),
        ("labels", np.zeros(65, np.int64)),
        ("labels", np.zeros(8, np.float32)),
        ("logits", np.zeros((8, 4), np.float32)),
        ("logits", np.zeros((9, 3), np.float32)),
        ("losses", np.ones(9, np.float32)),
    ],
)
def test_vectors_of_another_task_are_refused(name, values):
    with pytest.raises(DecodeError, match="golden"):
        Golden.from_bytes(replace(GOLDEN, **{name: values}).to_bytes(), TASK)


def test_what_is_compressed_is_refused_before_it_grows():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(DecodeError, match="compressed"):
        Golden.from_bytes(buffer.getvalue(), TASK)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@given(st.integers(0, len(DATA) - 1), st.binary(max_size=8))
def test_a_damaged_file_is_read_or_refused_and_fails_in_no_other_way(at, junk):
    for damaged in (DATA[:at], DATA[:at] + junk + DATA[at + len(junk) :]):
        with contextlib.suppress(DecodeError):
            assert isinstance(Golden.from_bytes(damaged, TASK), Golden)
