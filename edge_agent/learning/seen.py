"""Samples as a model sees them, and the public sets among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import DecodeError
from fd_protocol.manifest import Task
from fd_runtime.artifacts import PublicSet
from fd_runtime.models.model import F32, Features, Inputs
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import Space, preprocessed

A = TypeVar("A", bound=npt.NDArray[Any])

_ROWS_AT_ONCE = 128


class Seeing(Protocol):
    """Shows public sets through one model's frozen part."""

    def seen(self, public_set: bytes) -> SeenProbes:
        """Return a set by digest.

        Raises:
            DecodeError: `unknown_public_set`.
        """
        ...


class SeenProbes:
    """A public set through one model's frozen part, seen once; any number of cores of that model may share it.

    Args:
        public: the set.
        model: whose frozen part.
        went_on: called after every few probes: they may take minutes.
    """

    def __init__(self, public: PublicSet, model: LoadedModel, went_on: Callable[[], object] = lambda: None) -> None:
        self._public, self._task, self._went_on = public, model.manifest.task, went_on
        self.digest = public.digest
        self.features: Features = _frozen(each(public.probes(), self._task, model.features, went_on))

    def seen(self, public_set: bytes) -> SeenProbes:
        """See `Seeing`: this set and no other."""
        if public_set != self.digest:
            raise DecodeError("unknown_public_set", public_set.hex()[:16])
        return self

    @cached_property
    def space(self) -> Space:
        """Return the space in which everyone measures competence."""
        return self._public.space()

    @cached_property
    def points(self) -> F32:
        """Return where the probes lie in that space: float32 [count, dimensions]."""
        return _frozen(each(self._public.probes(), self._task, self.space.locate, self._went_on))


class SeenSets:
    """The public sets of a device, one at a time: the last one that was asked for is kept, the one before is let go.

    Args:
        first: the set that is asked for until another is.
        find: returns a set by digest; None: the device does not have it.
        model: through which they are seen.
        went_on: called after every few probes.
    """

    def __init__(
        self,
        first: SeenProbes,
        find: Callable[[bytes], PublicSet | None],
        model: LoadedModel,
        went_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._last, self._find, self._model, self._went_on = first, find, model, went_on

    def seen(self, public_set: bytes) -> SeenProbes:
        """See `Seeing`."""
        if public_set != self._last.digest:
            found = self._find(public_set)
            if found is None:
                raise DecodeError("unknown_public_set", public_set.hex()[:16])
            self._last = SeenProbes(found, self._model, self._went_on)
        return self._last


def each(
    samples: npt.NDArray[np.generic],
    task: Task,
    function: Callable[[Inputs], A],
    went_on: Callable[[], object] = lambda: None,
) -> A:
    """Return what `function` makes of preprocessed samples; a few at a time, float32 being four times as large."""
    parts = []
    for start in range(0, max(1, len(samples)), _ROWS_AT_ONCE):
        parts.append(function(preprocessed(samples[start : start + _ROWS_AT_ONCE], task)))
        went_on()
    return np.concatenate(parts)  # type: ignore[return-value]  # an array of the parts' type


def _frozen(array: A) -> A:
    array.flags.writeable = False
    return array
