"""What a worker trains on: the rows of a file and those of the store, taken anew when enough of these have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.private.data import Private
from edge_agent.private.store import PrivateStore
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, I64, Features
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import Space
from fd_runtime.storage.store import StoreError

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """Private rows of several places, at least one of them, one after the other."""

    parts: Sequence[Private]

    @property
    def labels(self) -> I64:
        return np.concatenate([part.labels for part in self.parts])

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def split(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        training, hold_out = zip(*(part.split() for part in self.parts), strict=True)
        return np.concatenate(training), np.concatenate(hold_out)

    def features(self, model: LoadedModel, went_on: Callable[[], object] = lambda: None) -> Features:
        return np.concatenate([part.features(model, went_on) for part in self.parts])

    def located(self, space: Space, task: Task) -> F32:
        return np.concatenate([part.located(space, task) for part in self.parts])


class Renewal:
    """Which rows are current.

    Args:
        store: whose rows change.
        fixed: rows that never do.
        model: sees them.
        went_on: called while it does.
    """

    def __init__(
        self, store: PrivateStore, fixed: Private, model: LoadedModel, went_on: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._fixed, self._model, self._went_on = store, fixed, model, went_on
        self._epoch = -1

    def rows(self) -> JoinedRows:
        """Return all rows as they are now.

        Raises:
            StoreError: they cannot be read.
        """
        epoch = self._store.epoch  # first: what comes while they are read counts for the next time
        rows = JoinedRows([self._fixed, self._store.seen_by(self._model, self._went_on)])
        self._epoch = epoch
        return rows

    def renew(self, take: Callable[[Private], None]) -> None:
        """Give all rows to `take` if they have become others. Where they cannot be read the old ones do, for now."""
        if self._store.epoch == self._epoch:
            return
        try:
            rows = self.rows()
        except StoreError as error:
            log.warning("private rows stay as they were: %s", error)
            return
        take(rows)
        log.info("trains on %d private rows from now on", len(rows))
