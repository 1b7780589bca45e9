"""What a device remembers: the participant's events and the bytes that they name, in one store."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.round.events import Event, from_journal, to_journal
from edge_agent.round.participant import Participant, named_blobs, step
from fd_protocol import cbor
from fd_protocol.schema import from_item, to_item
from fd_runtime.storage.store import Store

_SNAPSHOT_EVENTS = 32
_SNAPSHOT_BYTES = 8 << 20
"""Events, and bytes that they name, between two snapshots; what the state no longer names is deleted with each."""


class Journal:
    """The journal of one federation."""

    def __init__(self, store: Store, federation: str) -> None:
        self._store, self._federation = store, federation
        self._events = self._bytes = 0

    def replay(self) -> Participant:
        """Return the state that the journal folds to.

        Raises:
            DecodeError: a newer agent wrote it, or it is damaged.
        """
        snapshot, events = self._store.replay(self._federation)
        state = Participant() if snapshot is None else from_item(Participant, cbor.decode(snapshot))
        for kind, body in events:
            state = step(state, from_journal(kind, body))
        self._events = len(events)
        return state

    def write(self, events: Sequence[Event], blobs: Sequence[bytes], at_ms: int) -> None:
        """Make events and the bytes that they name durable, all or nothing.

        Raises:
            StoreFullError: no room; nothing was written.
        """
        with self._store.transaction():
            for blob in blobs:
                self._store.put_blob(blob)
            for event in events:
                self._store.append(self._federation, *_row(event, at_ms))
        self._events += len(events)
        self._bytes += sum(map(len, blobs))

    def blob(self, digest: bytes) -> bytes:
        return self._store.blob(digest)

    def compact(self, state: Participant) -> None:
        """Once in a while put `state` in the place of its events, and delete the bytes that it no longer names.

        Raises:
            StoreFullError: no room; the journal is as it was.
        """
        if self._events < _SNAPSHOT_EVENTS and self._bytes < _SNAPSHOT_BYTES:
            return
        with self._store.transaction():
            self._store.snapshot(self._federation, cbor.encode(to_item(state)))
            self._store.delete_blobs_except(named_blobs(state))
        self._events = self._bytes = 0


def _row(event: Event, at_ms: int) -> tuple[str, int, bytes]:
    kind, body = to_journal(event)
    return kind, at_ms, body
