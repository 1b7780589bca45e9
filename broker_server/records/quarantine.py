"""What broke a decoder, kept for the operator: the last few messages and bodies, each cut to a packet's size.

A body is soft labels or worse, so it is shown only on demand; what stands in its place says how it is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.identity import sha256
from fd_protocol.schema import decode, encode, keyed
from fd_runtime.storage.store import Store

PLACES = 32
"""Kept at a time; the next one takes the place of the oldest."""
MAX_BYTES = 65_536
"""Kept of one: a message, or the head of a body of several."""
_MAX_TOPIC = 512


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that could not be read.

    Attributes:
        number: counts all that there ever were, from 1.
        at_ms: when it came.
        topic: on which.
        reason: of the refusal, a word; `error` where it broke us, not a rule.
        size: in bytes.
        sha256: of all its bytes.
        head: its first bytes.
    """

    number: int = keyed(1)
    at_ms: int = keyed(2)
    topic: str = keyed(3)
    reason: str = keyed(4)
    size: int = keyed(5)
    sha256: bytes = keyed(6)
    head: bytes = keyed(7)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One federation's, in its store; every write belongs to the caller's transaction."""

    store: Store
    federation: str

    def put(self, topic: str, content: bytes, reason: str, at_ms: int) -> None:
        number = self.count() + 1
        kept = Quarantined(
            number, at_ms, topic[:_MAX_TOPIC], reason, len(content), sha256(content), content[:MAX_BYTES]
        )
        self.store.set_meta(f"{self._key}/{number % PLACES}", encode(kept))
        self.store.set_meta(self._key, cbor.encode(number))

    def count(self) -> int:
        """Return how many there ever were."""
        count = cbor.decode(self.store.meta(self._key) or cbor.encode(0))
        assert isinstance(count, int)
        return count

    def kept(self) -> Iterator[Quarantined]:
        """Yield those that are still here, the oldest first."""
        count = self.count()
        for number in range(max(1, count - PLACES + 1), count + 1):
            data = self.store.meta(f"{self._key}/{number % PLACES}")
            if data is not None:
                yield decode(Quarantined, data)

    @property
    def _key(self) -> str:
        return f"{self.federation}/quarantine"


def outline(content: bytes) -> str:
    """Return how `content` is built, without a word or a number of it."""
    try:
        return _outline(cbor.decode(content))
    except DecodeError as error:
        return f"not CBOR as it is written here: {error}"


def _outline(item: cbor.Item) -> str:
    if isinstance(item, dict):
        inside = ", ".join(
            f"{key if isinstance(key, int) else 'text'}: {_outline(value)}" for key, value in item.items()
        )
        return f"{{{inside}}}"
    if isinstance(item, list):
        return f"list of {len(item)}"
    if isinstance(item, (bytes, str)):
        return f"{len(item)} {'bytes' if isinstance(item, bytes) else 'characters'}"
    return type(item).__name__
