"""Labelled rows -> what calibration wants to know of them: those of a file, which never change, and those of a store.

Rows of the file go through the model's frozen part once. Of the store's, features are read again each time: training,
which holds them all, has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import numpy as np

from edge_agent.inference.calibration import MOST_ROWS, Known
from edge_agent.private.data import PrivateRows
from fd_runtime.models.model import I64, Features
from fd_runtime.models.opening import LoadedModel


class HeldOut(Protocol):
    """Rows that a model has seen."""

    @property
    def labels(self) -> I64: ...

    def features(self, model: LoadedModel) -> Features: ...


class LabelledStore(Protocol):
    """What the private store tells of its labelled rows: see `edge_agent.private.store`."""

    def met(self) -> Mapping[int, float]: ...

    def training_labels(self) -> I64: ...

    def held_out(self, model: LoadedModel, most: int) -> HeldOut: ...


class KnownRows:
    """What is known at the moment. Thread-safe.

    Args:
        fixed: rows of a file, perhaps none; as common as the samples that come.
        store: whose rows change; None: there is none.
        model: sees them.
    """

    def __init__(self, fixed: PrivateRows, store: LabelledStore | None, model: LoadedModel) -> None:
        self._fixed, self._store, self._model = fixed, store, model

    def __call__(self) -> Known:
        """Return it. Raises: FedistillError, OSError: rows cannot be read."""
        fixed, store = self._of_file, self._store
        if store is None:
            return fixed
        met = fixed.met.copy()
        for label, number in store.met().items():
            met[label] += number
        rows = store.held_out(self._model, MOST_ROWS)
        return Known(
            met,
            np.concatenate([fixed.labels, store.training_labels()]),
            np.concatenate([fixed.held_out_labels, rows.labels])[-MOST_ROWS:],
            np.concatenate([fixed.held_out, rows.features(self._model)])[-MOST_ROWS:],
        )

    @cached_property
    def _of_file(self) -> Known:
        training, held_out = self._fixed.split()
        places = np.flatnonzero(held_out)[-MOST_ROWS:]
        labels = self._fixed.labels[training]
        rows = PrivateRows(self._fixed.samples[places], self._fixed.labels[places])
        met = np.bincount(labels, minlength=len(self._model.manifest.task.classes)).astype(np.float64)
        return Known(met, labels, rows.labels, rows.features(self._model))
