"""Samples as a person can see them: PNG that any reader reads, lines for windows, numbers for tokens."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from edge_agent.api.pictures import picture_of, png
from fd_protocol.manifest import Preprocessing, Task


def test_a_png_is_what_pillow_reads():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 13), (256, 200), (5, 9, 3)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        with Image.open(io.BytesIO(png(pixels))) as image:
            image.verify()
        with Image.open(io.BytesIO(png(pixels))) as image:
            assert np.array_equal(np.asarray(image), pixels)


def decoded(picture):
    with Image.open(io.BytesIO(base64.b64decode(picture["png"]))) as image:
        return np.asarray(image)


def task_of(shape, dtype="float32", **more):
    return Task(("a", "b"), shape, dtype, Preprocessing(), **more)


@pytest.mark.parametrize(
    "shape", [(28, 28), (1, 28, 28), (3, 32, 20), (32, 20, 3), (28, 28, 1), (5, 30, 30), (3, 700, 500)]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_are_drawn_as_images(shape, dtype):
    sample = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    picture = picture_of(sample, task_of(shape, dtype))
    assert picture["kind"] == "image"
    pixels = decoded(picture)
    assert max(pixels.shape) <= 256
    assert pixels.ndim == (3 if 3 in (shape[0], shape[-1]) and len(shape) == 3 else 2)


def test_bytes_are_drawn_as_they_are_and_other_numbers_from_least_to_greatest():
    sample = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decoded(picture_of(sample, task_of((16, 16), "uint8"))), sample)
    wide = decoded(picture_of(sample.astype(np.float32) * 7 - 300, task_of((16, 16))))
    assert (wide.min(), wide.max()) == (0, 255)


@pytest.mark.parametrize(
    ("shape", "lines", "points"), [((3, 128), 3, 128), ((128, 3), 3, 128), ((50,), 1, 50), ((12, 1000), 8, 200)]
)
def test_windows_of_sensors_and_tables_are_drawn_as_lines(shape, lines, points):
    sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sample.flat[3] = np.nan
    picture = picture_of(sample, task_of(shape))
    assert picture["kind"] == "lines"
    assert len(picture["lines"]) == lines
    assert {len(line) for line in picture["lines"]} == {points}
    known = [point for line in picture["lines"] for point in line if point is not None]
    assert 0.0 <= min(known) <= max(known) <= 1.0
    json.dumps(picture, allow_nan=False)


@pytest.mark.parametrize("value", [0.0, 3.5, np.nan])
def test_a_constant_sample_can_be_drawn_too(value):
    for shape in ((20,), (3, 40), (16, 16)):
        json.dumps(picture_of(np.full(shape, value, np.float32), task_of(shape)), allow_nan=False)


def test_tokens_are_told_as_numbers():
    task = Task(("a", "b"), (5,), "int32", vocabulary=100)
    assert picture_of(np.array([1, 2, 3, 99, 0], np.int32), task) == {"kind": "tokens", "tokens": [1, 2, 3, 99, 0]}
