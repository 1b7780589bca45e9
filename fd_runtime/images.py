"""Images -> samples: one way for the workstation that trains and the device that serves. The only home of Pillow.

The task says everything: extents and channels are the sample's shape, `preprocessing.fit` says what becomes of other
proportions. Channels come first or last, as they do in the shape; [height, width] is grey.

What is deliberately absent: rotation by EXIF. What a file holds is what a model reads, here as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Task
from fd_runtime.config import EX_DATAERR
from fd_runtime.extras import MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODES = {1: "L", 3: "RGB"}
"""Pillow's name for that many channels."""
_WIDE = ("I", "F")
"""How Pillow's names of pixels over 8 bits begin; it would clip them to 255 without a word."""


class ImageError(FedistillError):
    """A file is no image, or one that cannot be a sample."""

    exit_code = EX_DATAERR


def check_images(task: Task) -> None:
    """Raises: ImageError: the task's samples are no images."""
    _frame_of(task)


def read_image(source: Path | BinaryIO, task: Task, *, most_pixels: int | None = None) -> npt.NDArray[np.uint8]:
    """Return an image as a sample's pixels: uint8 of the task's shape.

    Args:
        source: a file, or its path.
        task: says shape and fit.
        most_pixels: larger ones are not unpacked; None = as large as Pillow dares.

    Raises:
        ImageError: broken, too large to unpack, of more than 8 bits a pixel, or the task's samples are no images.
        MissingExtraError: Pillow is not installed.
        OSError: it cannot be read.
    """
    pillow, _ = _pillow()
    try:
        with pillow.open(source) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise ImageError(f"an image has at most {most_pixels} pixels, not {image.width} x {image.height}")
            if image.mode[0] in _WIDE:
                raise ImageError(f"holds pixels of more than 8 bits (mode {image.mode}): convert it to 8")
            return _fitted(image, task)
    except (SyntaxError, pillow.DecompressionBombError) as error:  # Pillow's word for a broken file, and a huge one
        raise ImageError(str(error)) from error


def sample_of(pixels: npt.NDArray[np.uint8], task: Task) -> npt.NDArray[np.uint8]:
    """Return a picture, grey [height, width] or RGB [height, width, 3], as a sample's pixels.

    Raises:
        ImageError: the task's samples are no images.
        MissingExtraError: Pillow is not installed.
    """
    pillow, _ = _pillow()
    return _fitted(pillow.fromarray(np.ascontiguousarray(pixels)), task)


class _Frame(NamedTuple):
    height: int
    width: int
    channels: int
    is_channels_first: bool


def _frame_of(task: Task) -> _Frame:
    shape = task.sample_shape
    if task.vocabulary is not None:
        raise ImageError("a text is no image")
    if len(shape) == 2:
        return _Frame(*shape, 1, is_channels_first=False)
    if len(shape) == 3 and shape[0] in _MODES:
        return _Frame(shape[1], shape[2], shape[0], is_channels_first=True)
    if len(shape) == 3 and shape[2] in _MODES:
        return _Frame(*shape, is_channels_first=False)
    raise ImageError(f"an image is no sample of shape {list(shape)}")


def _fitted(image: Image, task: Task) -> npt.NDArray[np.uint8]:
    pillow, operations = _pillow()
    frame = _frame_of(task)
    size, way = (frame.width, frame.height), pillow.Resampling.BILINEAR
    try:
        image = image.convert(_MODES[frame.channels])
        match task.preprocessing.fit:
            case "crop":
                image = operations.fit(image, size, way)
            case "pad":
                image = operations.pad(image, size, way, color=0)
            case None:
                image = image.resize(size, way)
    except ValueError as error:
        raise ImageError(str(error)) from error
    pixels = np.asarray(image)
    if frame.channels > 1 and frame.is_channels_first:
        pixels = np.moveaxis(pixels, -1, 0)
    return pixels.reshape(task.sample_shape)


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415 - only who reads images needs it
    except ImportError as error:
        raise MissingExtraError("images", "Pillow", "agent-images") from error
    return Image, ImageOps
