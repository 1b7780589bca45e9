"""What a partition sees of a data set, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import I64


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """Of every row its class, `labels` [n], and who recorded it, `groups` [n], or None if nobody said."""

    labels: I64
    groups: I64 | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise InvalidValueError(f"{len(self.labels)} rows have {len(self.groups)} groups")

    def __len__(self) -> int:
        return len(self.labels)

    def rows_by_class(self, rng: np.random.Generator) -> dict[int, I64]:
        """Return the rows of each class that there is, in random order."""
        return {int(label): rng.permutation(np.flatnonzero(self.labels == label)) for label in np.unique(self.labels)}


class Partition(Protocol):
    """A way to hand out rows."""

    def assign(self, census: Census, devices: int, rng: np.random.Generator) -> tuple[I64, ...]:
        """Return each device's rows, ascending. No row is handed out twice; equal arguments, equal rows.

        Raises:
            InvalidValueError: it cannot be done for so many devices; says what to change.
        """
        ...  # pragma: no cover - a protocol


def check_enough(rows: int, devices: int, minimum: int) -> None:
    """Raise InvalidValueError if there are not `minimum` rows for every device."""
    if rows < devices * minimum:
        raise InvalidValueError(
            f"{rows} rows are not {minimum} for each of {devices} devices: lower devices or minimum"
        )
