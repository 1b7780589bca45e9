"""Payloads that a group of messages has brought and that are written at its end, all at once.

Whoever asks what a device has sent is told of these too, as if they stood in the store already.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, Part
from fd_runtime.storage.store import PayloadRow, Store


@dataclass(frozen=True, slots=True)
class Payload:
    """An accepted payload: its row, and what it decoded to."""

    row: PayloadRow
    content: bytes

    @classmethod
    def of(cls, device: str, part: Part, content: bytes) -> Payload:
        """The payload that `part` was the last of."""
        kind, number, epoch = part.kind.value, part.round.number, part.round.epoch
        return cls(PayloadRow(kind, device, number, epoch, part.payload_sha256, sha256(content)), content)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One federation's accepted payloads: those in the store, and those that are to be written.

    Attributes:
        store: where they go.
        federation: whose.
    """

    store: Store
    federation: str
    _new: dict[tuple[str, str], dict[tuple[int, int], Payload]] = field(default_factory=dict)
    """By kind and device, then by round and epoch."""

    def rows(self, kind: Kind, device: str) -> list[PayloadRow]:
        """Return what `device` has sent, newest first."""
        new = self._new.get((kind.value, device), {})
        stored = self.store.payloads(self.federation, kind.value, device)
        if not new:
            return stored
        others = (row for row in stored if (row.round, row.epoch) not in new)
        return sorted((*(payload.row for payload in new.values()), *others), key=lambda row: (-row.round, -row.epoch))

    def content(self, row: PayloadRow) -> bytes:
        """Return what the payload of `row` decoded to."""
        new = self._new.get((row.kind, row.device), {}).get((row.round, row.epoch))
        return new.content if new is not None else self.store.blob(row.content)

    def add(self, payload: Payload) -> None:
        """Take a payload; one with the same key gives way."""
        row = payload.row
        self._new.setdefault((row.kind, row.device), {})[row.round, row.epoch] = payload

    def write(self) -> None:
        """Put all that is new into the store, within the caller's transaction."""
        if not self._new:
            return
        payloads = [payload for _, by_round in sorted(self._new.items()) for payload in by_round.values()]
        self.store.put_blobs((payload.row.content, payload.content) for payload in payloads)
        self.store.put_payloads(self.federation, [payload.row for payload in payloads])
