"""Samples -> what the model says of them now. One for all threads: the loop, the local API, whoever embeds it.

    samples --preprocess--> inputs --backbone--> features --tail--> logits --/ temperature, + log prior--> probabilities

It has a tail of its own beside the one that is trained: what a training tries and does not keep is never heard here.
New weights, another prior or temperature count from the next call on; a call under way ends as it began.

The class prior makes predictions personal (`local_prior`): it is what this device meets, and is never published.
"""

from __future__ import annotations

import itertools
import math
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.inference.latency import Latency, Stage
from edge_agent.learning.local_prior import correct
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, I64, Features, Tail
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import preprocessed


class SampleError(InvalidValueError):
    """A sample is not what the task describes."""


class Predictions:
    """What a model said of n samples. Values; the arrays are made when they are first asked for.

    Attributes:
        logits: float32 [n, classes], adjusted. Of a row with NaN or plus infinity nothing is known: all are equal.
        best: of each sample the likeliest class and its probability.
        sample_ids: names of the samples.
    """

    def __init__(self, logits: F32, sample_ids: Sequence[str]) -> None:
        self.logits, self.sample_ids = logits, sample_ids
        self.best: Sequence[tuple[int, float]] = _best_of_one(logits) if len(logits) == 1 else self._best()

    def __len__(self) -> int:
        return len(self.best)

    @cached_property
    def probabilities(self) -> F32:
        """Return float32 [n, classes]; a class of minus infinity has none."""
        peaks = self.logits.max(axis=1, keepdims=True)
        is_known = np.isfinite(peaks)  # NaN wins every maximum
        with np.errstate(invalid="ignore"):
            powers = np.exp(np.where(is_known, self.logits - peaks, np.float32(0)), dtype=np.float64)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    @cached_property
    def labels(self) -> I64:
        """Return int64 [n], the likeliest class of each."""
        return np.array([label for label, _ in self.best], np.int64)

    @cached_property
    def confidence(self) -> F32:
        """Return float32 [n], the probability of that class."""
        return np.array([confidence for _, confidence in self.best], np.float32)

    @cached_property
    def margins(self) -> F32:
        """Return float32 [n], by how much the likeliest class is likelier than the next."""
        top = np.partition(self.probabilities, -2, axis=1)[:, -2:]
        return np.asarray(top[:, 1] - top[:, 0], np.float32)

    def _best(self) -> Sequence[tuple[int, float]]:
        is_known = np.isfinite(self.logits.max(axis=1, keepdims=True))
        labels = np.where(is_known, self.logits, np.float32(0)).argmax(axis=1)
        return list(zip(labels.tolist(), self.probabilities[np.arange(len(labels)), labels].tolist(), strict=True))


def _best_of_one(logits: F32) -> Sequence[tuple[int, float]]:
    """Return label and confidence of a single row without numpy, whose dozen small calls cost as much as a backbone."""
    row: list[float] = logits.tolist()[0]
    peak = max(row)
    total = sum([math.exp(value - peak) for value in row]) if math.isfinite(peak) else math.nan
    return ((row.index(peak), 1.0 / total),) if math.isfinite(total) else ((0, 1.0 / len(row)),)


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """How logits become probabilities here: softmax(logits / temperature + log_prior)."""

    temperature: float = 1.0
    log_prior: F32 | None = None
    """float32 [classes]; None: no correction."""

    def __post_init__(self) -> None:
        require(0.01 <= self.temperature <= 100.0, "a temperature lies in [0.01, 100]")

    def apply(self, logits: F32) -> F32:
        """Return adjusted logits [n, classes]."""
        if self.temperature != 1.0:
            logits = logits / np.float32(self.temperature)
        return logits if self.log_prior is None else correct(logits, self.log_prior)


Observe = Callable[[Features, F32], None]
"""Sees features [n, ...] and logits [n, classes], before adjustment, of samples. Called by the thread that predicts."""


class Predictor:
    """A model that answers. Thread-safe.

    Args:
        model: whose backbone it uses; that of the learner, which may extract with it at the same time.
        tail: its own (`Bundle.open_tail`).
        latency: where times go.
        observe: who looks at features and logits; nobody by default.
    """

    def __init__(
        self,
        model: LoadedModel,
        tail: Tail,
        latency: Latency | None = None,
        observe: Observe = lambda features, logits: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        self._task = model.manifest.task
        self._model, self._tail, self._observe = model, tail, observe
        self._check = _Checker(self._task)
        self._writing = threading.Lock()
        self._run, self._numbers = secrets.token_hex(6), itertools.count(1)
        self.latency = latency or Latency()
        self.adjustment = Adjustment()
        """Set it whole; the next call reads it."""

    @property
    def task(self) -> Task:
        return self._task

    def load(self, theta: F32) -> None:
        """Answer with these parameters from now on; safe from any thread.

        Raises:
            ThetaError: they do not fit; the old ones stay.
        """
        with self._writing:
            self._tail.load(theta)

    def predict(
        self, samples: npt.NDArray[Any], *, sample_ids: Sequence[str] | None = None, is_observed: bool = True
    ) -> Predictions:
        """Return what the model says.

        Args:
            samples: [n, *sample_shape] as recorded, in the task's type; n is at least 1.
            sample_ids: their names; None: new ones.
            is_observed: whether they are of those that this device lives on; a test file is not.

        Raises:
            SampleError: they are not what the task describes.
            ModelError: the runtime refuses them.
        """
        rows = self._check(samples)
        begin_s = perf_counter()
        inputs = preprocessed(samples, self._task)
        seen_s = perf_counter()
        features = self._model.features(inputs)
        extracted_s = perf_counter()
        logits = self._tail.logits(features)
        predictions = Predictions(self.adjustment.apply(logits), sample_ids or self._names(rows))
        end_s = perf_counter()
        self.latency.record(Stage.PREPROCESS, rows, seen_s - begin_s, extracted_s - seen_s, end_s - extracted_s)
        if is_observed:
            self._observe(features, logits)
        return predictions

    def _names(self, rows: int) -> Sequence[str]:
        """Names that no other run of this device gives: a store may keep those of many."""
        # A count gives each number once, whoever asks.
        return tuple([f"{self._run}-{next(self._numbers)}" for _ in range(rows)])

    def logits(self, features: Features) -> F32:
        """Return logits [n, classes] of features [n, ...] of the model's backbone, unadjusted. For who fits one."""
        return self._tail.logits(features)


class _Checker:
    """Refuses what the model would misread: a wrong shape or type, an infinite number, a token that is none."""

    def __init__(self, task: Task) -> None:
        self._shape, self._dtype, self._vocabulary = task.sample_shape, np.dtype(task.sample_dtype), task.vocabulary

    def __call__(self, samples: npt.NDArray[Any]) -> int:
        """Return how many samples there are."""
        if samples.shape[1:] != self._shape or samples.dtype != self._dtype or not len(samples):
            wanted = f"{self._dtype} [n, {', '.join(map(str, self._shape))}]"
            raise SampleError(f"samples must be {wanted}, are {samples.dtype} {list(samples.shape)}")
        if self._dtype.kind == "f" and np.isinf(samples).any():
            raise SampleError("a sample holds an infinite value")
        if self._vocabulary is not None and not (samples.min() >= 0 and samples.max() < self._vocabulary):
            raise SampleError(f"tokens must lie from 0 to {self._vocabulary - 1}")
        return len(samples)
