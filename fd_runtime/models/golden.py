"""Golden vectors: what a bundle answered where it was built, so that another machine can tell whether it still does.

A few samples with labels, the logits they got, and the losses of a few train steps on them.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import DecodeError, FedistillError
from fd_protocol.manifest import Task
from fd_protocol.soft_labels import soften
from fd_runtime.models.model import F32, I64, Batch
from fd_runtime.models.opening import LoadedModel
from fd_runtime.npy import from_npy
from fd_runtime.space import preprocessed

LOGIT_TOLERANCE = 0.05
"""Largest deviation of a logit, relative to the golden logits' range: one step of an int8 feature, and no more."""
LOSS_TOLERANCE = 0.02
"""Largest relative deviation of a loss."""
_LEAST = 1e-2
"""Ranges and losses below it count as it: a fresh head may answer nothing but zeros."""
MAX_ROWS = 64
_STEPS = 3
_LEARNING_RATE = 1e-2
_TEMPERATURE = 2.0
_NO_ARCHIVE = (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, RuntimeError)
"""What zipfile raises for bytes that are none, in its many ways."""


class GoldenMismatchError(FedistillError):
    """A model does not answer as it did where it was built."""

    exit_code = 65  # EX_DATAERR

    def __init__(self, quantity: str, deviation: float, tolerance: float) -> None:
        self.quantity, self.deviation, self.tolerance = quantity, deviation, tolerance
        super().__init__(f"golden vectors: {quantity} off by {deviation:.2g}, at most {tolerance:g} allowed")


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Samples [n, *sample_shape] before preprocessing, labels int64 [n], logits [n, classes], losses [steps]."""

    samples: npt.NDArray[np.generic]
    labels: I64
    logits: F32
    losses: F32

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, samples=self.samples, labels=self.labels, logits=self.logits, losses=self.losses)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, task: Task) -> Golden:
        """Return what `to_bytes` wrote, of a model for `task`; no array is larger than `data`.

        Raises:
            DecodeError: it did not, or these are not samples, labels and logits of the task.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                samples, labels, logits, losses = (_stored(archive, field.name) for field in fields(cls))
        except _NO_ARCHIVE as error:
            raise DecodeError("malformed", f"golden vectors: {error}") from error
        known = from_npy(labels, "golden labels", "int64", (None,))
        rows, classes = len(known), len(task.classes)
        if not 1 <= rows <= MAX_ROWS or known.min() < 0 or known.max() >= classes:
            raise DecodeError("malformed", f"golden labels must be 1 to {MAX_ROWS} of {classes} classes")
        return cls(
            from_npy(samples, "golden samples", task.sample_dtype, (rows, *task.sample_shape)),
            known,
            from_npy(logits, "golden logits", "float32", (rows, classes)),
            from_npy(losses, "golden losses", "float32", (_STEPS,)),
        )


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of an array. Compressed ones could be of any size, and `np.savez` compresses nothing."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{member.filename} is compressed")
    return archive.read(member)


def record(model: LoadedModel, samples: npt.NDArray[np.generic], labels: I64) -> Golden:
    """Return what `model` answers now; its state is as before."""
    features = model.features(preprocessed(samples, model.manifest.task))
    logits = model.tail.logits(features)
    session, begin = model.train_session, model.train_session.state
    # Half cross-entropy, half distillation of another row's answer: every part of the step has a say.
    half = np.full(len(labels), 0.5, np.float32)
    batch = Batch(features, labels, soften(logits[::-1], _TEMPERATURE), half, np.ones_like(half))
    losses = [session.run(batch, learning_rate=_LEARNING_RATE, temperature=_TEMPERATURE) for _ in range(_STEPS)]
    session.state = begin
    return Golden(samples, labels, logits, np.array(losses, np.float32))


def check(model: LoadedModel, golden: Golden) -> None:
    """Raises: GoldenMismatchError: `model` answers or learns otherwise than the golden vectors say."""
    found = record(model, golden.samples, golden.labels)
    logits = float(np.abs(found.logits - golden.logits).max() / max(np.ptp(golden.logits), _LEAST))
    losses = float((np.abs(found.losses - golden.losses) / np.maximum(golden.losses, _LEAST)).max())
    for quantity, deviation, tolerance in (("logits", logits, LOGIT_TOLERANCE), ("losses", losses, LOSS_TOLERANCE)):
        if not deviation <= tolerance:  # so that NaN fails
            raise GoldenMismatchError(quantity, deviation, tolerance)
