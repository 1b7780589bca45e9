"""A picture is the same sample, whoever reads it and from wherever it comes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.extras import MissingExtraError
from fd_runtime.images import ImageError, read_image, sample_of
from model_export.samples import read_samples


def task(shape, fit=None, dtype="uint8"):
    return Task(("a", "b"), shape, dtype, Preprocessing(fit=fit))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fit", [None, "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6), (8, 6, 3), (8, 8)])
def test_frames_files_and_the_workstation_give_the_same_pixels(tmp_path, shape, fit):
    pixels = picture(30, 50)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    from_camera = sample_of(pixels, task(shape, fit))
    assert from_camera.shape == shape
    np.testing.assert_array_equal(read_image(tmp_path / "1.png", task(shape, fit)), from_camera)
    np.testing.assert_array_equal(read_samples(tmp_path, task(shape, fit)).values[0], from_camera)


def three_thirds():
    """A picture [12, 36]: its left third is 50, its middle third 100, its right third 200."""
    return np.repeat(np.array([[50, 100, 200]], np.uint8), 12, axis=1).repeat(12, axis=0)


def test_other_proportions_are_stretched_cut_or_padded():
    stretched, cropped, padded = (sample_of(three_thirds(), task((12, 12), fit)) for fit in (None, "crop", "pad"))
    assert (stretched[0, 0], stretched[0, -1], stretched[-1, -1]) == (50, 200, 200)
    assert set(np.unique(cropped)) == {100}
    assert (padded[:4] == 0).all()
    assert (padded[8:] == 0).all()
    np.testing.assert_array_equal(padded[4:8, [0, 6, -1]], [[50, 100, 200]] * 4)


def test_a_grey_frame_becomes_what_the_task_asks_for():
    np.testing.assert_array_equal(sample_of(np.full((4, 4), 7, np.uint8), task((3, 4, 4))), np.full((3, 4, 4), 7))


def test_a_picture_is_no_row_of_a_table():
    with pytest.raises(ImageError, match=r"no sample of shape \[12\]"):
        sample_of(picture(4, 4), task((12,)))


def test_without_pillow_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"images need Pillow: pip install 'fedistill\[agent-images\]'"):
        sample_of(picture(4, 4), task((4, 4)))


def test_a_device_that_reads_no_image_never_loads_pillow():
    code = "import sys, fd_runtime.samples; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
