"""A file of samples -> what the device's model says of them, in this process: for a person who wants to see it once.

The model is the bundle with what the device has learned (`checkpoint`), the samples are preprocessed as in training. A
device that runs is not disturbed.

What is deliberately absent: the correction by the local prior, which needs the private rows; streams, batches, outputs.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.equipment import load_equipment
from edge_agent.learning import checkpoint
from edge_agent.learning.learned import private_path, spoke_privately
from edge_agent.learning.seen import each
from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Task
from fd_runtime import images
from fd_runtime.config import EX_DATAERR
from fd_runtime.models.model import F32
from fd_runtime.models.opening import LoadedModel
from fd_runtime.samples import read_table
from fd_runtime.starting import blame

LABEL = "label"
"""Name of a table's column of labels, which it need not have."""


class SampleError(FedistillError):
    """A file does not hold samples as the task describes them."""

    exit_code = EX_DATAERR


@dataclass(frozen=True, slots=True)
class Speaker:
    """The device's model, ready to speak."""

    model: LoadedModel

    @property
    def task(self) -> Task:
        return self.model.manifest.task

    def probabilities(self, samples: npt.NDArray[np.generic]) -> F32:
        """Return p(class) float32 [n, classes] for `samples` [n, *sample_shape] before preprocessing."""
        logits = self.model.tail.logits(each(samples, self.task, self.model.features))
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def load_speaker(path: Path) -> Speaker:
    """Return the model of the device of the settings file at `path`, with what it has learned.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: bundle or checkpoint are missing or damaged.
    """
    equipment = load_equipment(path)
    settings = equipment.settings.model
    with blame(path, "model.runtime"):
        model = equipment.bundle.open(settings.runtime, threads=settings.threads)
    with blame(path, "state.folder"):
        path = equipment.checkpoint
        if equipment.is_private or spoke_privately(path):
            path = private_path(path)
        learned = checkpoint.load(path)
        if learned is not None and learned.bundle == equipment.bundle.digest:
            model.tail.load(learned.state().theta)
    return Speaker(model)


def read_samples(path: Path, task: Task) -> npt.NDArray[np.generic]:
    """Return the samples [n, *sample_shape] in a file: npy, npz (array `x`), csv with a head, or one image.

    Raises:
        SampleError: it is missing, is none of these, or has samples of another shape.
    """
    try:
        samples = _read(path, task)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise SampleError(f"{path}: not readable as samples: {' '.join(str(error).split())}") from error
    if samples.shape == task.sample_shape:
        samples = samples[None]
    if samples.shape[1:] != task.sample_shape:
        wanted, found = ", ".join(map(str, task.sample_shape)), list(samples.shape)
        raise SampleError(f"{path}: expected samples [n, {wanted}], found {found}")
    cast = samples.astype(task.sample_dtype)
    if samples.dtype.kind in "fiu" and not np.array_equal(cast, samples) and task.sample_dtype != "float32":
        raise SampleError(f"{path}: samples are {task.sample_dtype}, and these numbers do not fit")
    return cast


def _read(path: Path, task: Task) -> npt.NDArray[np.generic]:
    match path.suffix.lower():
        case ".npy":
            return np.asarray(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))
        case ".npz":
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                return np.asarray(arrays["x"])
        case ".csv":
            return read_table(path, task, LABEL).values.reshape(-1, *task.sample_shape)
        case suffix if suffix in images.SUFFIXES:
            return images.read_image(path, task)[None]
    raise SampleError(f"{path}: not one of .npy, .npz, .csv, {', '.join(images.SUFFIXES)}")
