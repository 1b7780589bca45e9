"""What a device knows of a sample that it keeps, and what it says of itself: the values of the private store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fd_protocol.identity import require, sha256
from fd_protocol.schema import keyed

HOLD_OUT_SHARE = 0.1
"""Of all rows, the part that the guard looks at and training never sees."""


class Pool(str, Enum):
    """Why a row is kept."""

    LABELLED = "labelled"
    """Somebody has said what it is."""
    GUESSED = "guessed"
    """The model is sure what it is."""
    ASKED = "asked"
    """The model is not sure at all, and a person may say."""
    AWAITING = "awaiting"
    """It is one of the newest, and its label may come late."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A row, but for its sample.

    Attributes:
        sample_id: what it is called everywhere on this device.
        at_ms: when it was captured, in Unix time.
        source: which source captured it.
        pool: why it is kept.
        is_held_out: its side, decided when it came (`is_held_out`) and never again.
        label: its class, where that is known or guessed.
        by: who said so: a source, a person, a topic, or `guess`.
        guess: the class that the model found likeliest.
        confidence: the probability of that.
        margin: by how much it was likelier than the next.
        asked_ms: when a person was first asked; None = never.
    """

    sample_id: str = keyed(1)
    at_ms: int = keyed(2)
    source: str = keyed(3)
    pool: Pool = keyed(4)
    is_held_out: bool = keyed(5, default=False)
    label: int | None = keyed(6, default=None)
    by: str = keyed(7, default="")
    guess: int | None = keyed(8, default=None)
    confidence: float | None = keyed(9, default=None)
    margin: float | None = keyed(10, default=None)
    asked_ms: int | None = keyed(11, default=None)

    def __post_init__(self) -> None:
        require(0 < len(self.sample_id) <= 512, "a sample id has 1 to 512 characters")
        has_label = self.pool in (Pool.LABELLED, Pool.GUESSED)
        require((self.label is not None) == has_label, "labelled and guessed rows have a label, others none")
        require(self.pool is not Pool.GUESSED or not self.is_held_out, "what is held out was never guessed")
        require(self.pool is not Pool.ASKED or self.margin is not None, "a question is about a margin")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a person: what is this sample? See `PrivateStore.uncertain`."""

    sample_id: str
    confidence: float
    guess: int | None
    at_ms: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in the store, in numbers.

    Attributes:
        rows: by pool.
        classes: labelled and guessed rows by class number.
        held_out: of the labelled rows.
        capacity: most rows of each pool.
        disk_bytes: of its files.
        oldest_ms: when the oldest row was captured; None = there are none.
        epoch: see `PrivateStore.epoch`.
        is_encrypted: whether a key is needed to read it.
    """

    rows: Mapping[str, int]
    classes: Mapping[int, int]
    held_out: int
    capacity: Mapping[str, int]
    disk_bytes: int
    oldest_ms: int | None
    epoch: int
    is_encrypted: bool


def is_held_out(sample_id: str) -> bool:
    """Return the side of a row: sha256("hold-out" | id)[:4] / 2^32 < `HOLD_OUT_SHARE`, whatever else is known of it."""
    draw = int.from_bytes(sha256(b"hold-out" + sample_id.encode())[:4], "big")
    return draw / 2**32 < HOLD_OUT_SHARE
