"""What inference asks of its neighbours: samples of a source, and a place to keep and label them.

`edge_agent.sources` and `edge_agent.private` are such; nothing here knows more of them than this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # outputs, and the settings that name them, are the supervisor's as well: it has no numpy
    import numpy.typing as npt


class Captured(Protocol):
    """A sample as its source recorded it. `label` is a class name or number where the source knows it."""

    @property
    def sample(self) -> npt.NDArray[Any]: ...
    @property
    def sample_id(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def label(self) -> str | int | None: ...
    @property
    def source(self) -> str: ...
    @property
    def can_wait(self) -> bool: ...


class Source(Protocol):
    """Where samples come from. `run` lasts until `stop` is set; what it raises ends it, and it is run again."""

    def run(self, deliver: Callable[[Captured], None], stop: threading.Event) -> None: ...


class Asked(Protocol):
    """A sample that the model is unsure of, and its guess."""

    @property
    def sample_id(self) -> str: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def guess(self) -> int | None: ...
    @property
    def at_ms(self) -> int: ...


class Store(Protocol):
    """The private store: thread-safe, bounded, never on the wire."""

    def add(
        self,
        sample: npt.NDArray[Any],
        *,
        sample_id: str,
        label: int | None,
        confidence: float | None,
        at_ms: int,
        source: str,
        guess: int | None = None,
        margin: float | None = None,
    ) -> bool:
        """Return whether it is kept. `guess` is the likeliest class, `margin` how much likelier than the next."""
        ...

    def label(self, sample_id: str, label: int, *, by: str) -> bool:
        """Return False where there is no such sample (any more)."""
        ...

    def skip(self, sample_id: str) -> bool:
        """Nobody can tell what it is: it is not asked again. Return False where it was not asked."""
        ...

    def uncertain(self, count: int = 50) -> Sequence[Asked]: ...

    def sample(self, sample_id: str) -> npt.NDArray[Any] | None: ...

    @property
    def epoch(self) -> int:
        """Return a number that is another one when enough labelled rows have changed."""
        ...


@dataclass(frozen=True, slots=True)
class LivePrediction:
    """What the model said of one sample, as outputs tell it. `confidence` is the label's probability."""

    sample_id: str
    label: str
    confidence: float
    at_ms: int
    source: str


class Output(Protocol):
    """Where predictions go. `say` returns at once, whatever becomes of them, and is called from several threads."""

    name: str

    def say(self, prediction: LivePrediction) -> None: ...

    def facts(self) -> dict[str, object]:
        """Return how it does, for people."""
        ...

    def close(self) -> None:
        """Get out what can be got out in a second."""
        ...
