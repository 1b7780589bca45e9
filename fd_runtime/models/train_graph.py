"""Train steps as graphs, whichever runtime computes them: inputs and outputs, and the state between two steps.

A graph is a function; `model_export.trainstep` writes it:

    inputs    a batch's five arrays, theta, reference, the slots, five scalars (float32 of rank 0);
              a private step also reads noise, as long as theta, and the scalar expected_rows
    outputs   loss, theta.new, NAME.new of every slot
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import F32, Batch, OptimizerState, check_state

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

_THETA_NEW, _NEW = "theta.new", ".new"
_LARGEST = 1e6
"""No feature, target or weight of a sane row is larger; sums and squares of such stay far from overflow."""


class StepGraph(ABC):
    """A train-step graph and the state it changes; a runtime says how to `compute` it."""

    def __init__(self, size: int, outputs: Collection[str], state: OptimizerState) -> None:
        """Go on from `state`.

        Args:
            size: parameters of the graph.
            outputs: names of all its outputs.
            state: parameters and optimizer slots, fresh or of an earlier session.

        Raises:
            ThetaError: the state does not fit the graph.
        """
        self._size = size
        self._slots = tuple(n.removesuffix(_NEW) for n in outputs if n.endswith(_NEW) and n != _THETA_NEW)
        self.state = state

    @property
    def state(self) -> OptimizerState:
        """Parameters and optimizer memory after the last step; set it to resume or to roll back."""
        return self._state

    @state.setter
    def state(self, state: OptimizerState) -> None:
        self._state = check_state(state, self._size, self._slots)

    @abstractmethod
    def compute(self, feed: Arrays) -> Arrays:
        """Return all outputs by name.

        Raises:
            ModelError: the runtime refuses an input.
        """

    def _advance(self, batch: Batch, reference: F32 | None, scalars: Mapping[str, float], **vectors: F32) -> float:
        """Take one step and return its loss."""
        state, step = self._state, self._state.step + 1
        feed = {
            "features": batch.features,
            "labels": batch.labels,
            "targets": batch.targets,
            "alpha": batch.alpha,
            "weight": batch.weight,
            "theta": state.theta,
            "reference": state.theta if reference is None else reference,
            **{name: np.array(content, np.float32) for name, content in {**scalars, "step": step}.items()},
            **vectors,
            **state.slots,
        }
        new = self.compute(feed)
        self._state = OptimizerState(new[_THETA_NEW], {name: new[name + _NEW] for name in self._slots}, step)
        return float(new["loss"])


class TrainGraph(StepGraph):
    """A `model.TrainSession` on a graph."""

    def run(
        self,
        batch: Batch,
        *,
        learning_rate: float,
        temperature: float,
        reference: F32 | None = None,
        prox: float = 0.0,
        max_norm: float = 0.0,
    ) -> float:
        """Take one step; see `TrainSession.run`."""
        scalars = {"learning_rate": learning_rate, "temperature": temperature, "prox": prox, "max_norm": max_norm}
        return self._advance(batch, reference, scalars)


class PrivateTrainGraph(StepGraph):
    """A `model.PrivateTrainSession` on a graph."""

    def run(
        self,
        batch: Batch,
        *,
        learning_rate: float,
        clip_norm: float,
        noise: F32,
        expected_rows: float,
        temperature: float = 1.0,
        reference: F32 | None = None,
        prox: float = 0.0,
    ) -> float:
        """Take one step; see `PrivateTrainSession.run`."""
        if not (0 < clip_norm < math.inf and 0 < expected_rows < math.inf):
            raise InvalidValueError(f"a clip of {clip_norm} and {expected_rows} expected rows: both must be positive")
        scalars = {
            "learning_rate": learning_rate,
            "temperature": temperature,
            "prox": prox,
            "max_norm": clip_norm,
            "expected_rows": expected_rows,
        }
        return self._advance(_without_insane_rows(batch), reference, scalars, noise=noise)


def _without_insane_rows(batch: Batch) -> Batch:
    """Make padding of rows with numbers that are not finite: one of them would make all of theta NaN, clip or not."""
    contents = {name: getattr(batch, name) for name in ("features", "targets", "alpha", "weight")}
    is_sane = np.logical_and.reduce([_is_sane(array) for array in contents.values()])
    if is_sane.all():
        return batch
    return replace(batch, **{name: _zeroed(array, ~is_sane) for name, array in contents.items()})


def _is_sane(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell of each row whether all its numbers are finite and of no absurd size; integers always are."""
    if array.dtype.kind in "iu":
        return np.ones(len(array), np.bool_)
    is_sane: npt.NDArray[np.bool_] = (np.abs(array) <= _LARGEST).reshape(len(array), -1).all(axis=1)
    return is_sane


def _zeroed(array: npt.NDArray[Any], rows: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    changed = array.copy()
    changed[rows] = 0
    return changed
