"""What a source is, and what it delivers."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG


class SourceError(FedistillError):
    """A source cannot be what its settings say."""

    exit_code = EX_CONFIG


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A sample, as recorded.

    Attributes:
        sample: of the task's shape and type, before preprocessing.
        sample_id: its name on this device, for ever: what labels that come later refer to.
        at_ms: when it was captured, in Unix time.
        label: its class, by name or number, where the source knows it.
        source: name of the source.
        can_wait: whether its source rather waits than have a sample dropped: it has them all already.
    """

    sample: npt.NDArray[Any]
    sample_id: str
    at_ms: int
    label: str | int | None
    source: str
    can_wait: bool = False


Deliver = Callable[[Captured], None]


class Source(Protocol):
    """Samples as they come."""

    def run(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver samples until `stop` is set, or there will be no more. The body of a thread.

        Raises:
            FedistillError, OSError: it cannot go on; it may be run again.
        """
        ...


class Names:
    """Sample ids for samples that have no name of their own: `door/1732871221004-9f3a-17`.

    Args:
        source: name of the source.
    """

    def __init__(self, source: str) -> None:
        self._source, self._life, self._numbers = source, secrets.token_hex(2), itertools.count(1)

    def name(self, at_ms: int) -> str:
        return f"{self._source}/{at_ms}-{self._life}-{next(self._numbers)}"


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
