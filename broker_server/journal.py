"""A federation's memory in the store: snapshot and events, and what must go when a round has ended.

Memory on disk: the state that the journal folds to; of every device the last contribution about each slice, while it
may count or be the base of a difference; the last competence map of every device that ever sent one, for each public
set that rounds are or may come to be about (a few hundred bytes; a device sends its map once); records of as many
rounds as the settings say (`scribe`); blobs that one of these names. All else goes when a round ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

from broker_server.core.events import Event, from_journal, to_journal
from broker_server.core.federation import Federation, from_snapshot, named_blobs, step, to_snapshot
from broker_server.core.labels import StoredLabels
from broker_server.records.quarantine import Quarantine
from fd_protocol import codec
from fd_protocol.messages import MAX_PAYLOAD_BYTES, CompetenceMap, Kind, Slice
from fd_runtime.storage.store import PayloadRow, Store

SNAPSHOT_EVENTS = 10_000
"""A journal this long is folded even if no round ends: devices may come and go for weeks."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a journal told: the snapshot, the (kind, body) of each event since, and the state that they fold to."""

    snapshot: bytes | None
    entries: Sequence[tuple[str, bytes]]
    state: Federation


class Journal:
    """Reads and writes one federation's memory; every write belongs to the caller's transaction."""

    def __init__(self, store: Store, federation: str) -> None:
        self._store = store
        self._federation = federation
        self._events = 0
        self.quarantine = Quarantine(store, federation)
        self._counters_key = f"{federation}/counters"

    def replay(self) -> Federation:
        """Return the state that the journal tells.

        Raises:
            DecodeError: a newer server wrote it, or it is damaged.
        """
        told = self.follow(None)
        self._events = len(told.entries)
        return told.state

    def follow(self, before: Told | None) -> Told:
        """Return what the journal tells; what it told `before` is not folded again.

        Raises:
            DecodeError: as in `replay`.
        """
        snapshot, entries = self._store.replay(self._federation)
        known = 0 if before is None else len(before.entries)
        if before is not None and before.snapshot == snapshot and before.entries == entries[:known]:
            state = before.state
        else:
            state, known = Federation() if snapshot is None else from_snapshot(snapshot), 0
        return Told(
            snapshot, entries, reduce(step, (from_journal(kind, body) for kind, body in entries[known:]), state)
        )

    def write(self, events: Sequence[Event], at_ms: int) -> None:
        for event in events:
            kind, body = to_journal(event)
            self._store.append(self._federation, kind, at_ms, body)
        self._events += len(events)

    def take(self, event: Event, state: Federation, at_ms: int) -> Federation:
        """Write an event and return the state after it."""
        self.write([event], at_ms)
        return step(state, event)

    @property
    def is_long(self) -> bool:
        return self._events >= SNAPSHOT_EVENTS

    def fold(self, state: Federation) -> None:
        """Put the state in the place of its events."""
        self._store.snapshot(self._federation, to_snapshot(state))
        self._events = 0

    def tidy(self, state: Federation, named: Collection[bytes] = (), *, kept_rounds: int) -> None:
        """Drop what no later round can ask for. Call it when no round is open.

        Args:
            state: of the federation.
            named: digests of blobs that stay as well.
            kept_rounds: for so many rounds a device's last contribution about a slice stays.
        """
        kept = [*self._trim_contributions(state.number + 1 - kept_rounds), *self._trim_maps(state)]
        self._store.delete_parts(self._federation)
        self._store.delete_blobs_except({row.content for row in kept} | named_blobs(state) | set(named))

    def _trim_contributions(self, first: int) -> Iterable[PayloadRow]:
        """Keep each device's last contribution about each slice, from round `first` on; yield what is kept."""
        seen: set[tuple[str, Slice]] = set()
        slices: dict[tuple[int, int], Slice] = {}
        for row in self._store.payloads(self._federation, Kind.CONTRIBUTION.value):
            if row.round >= first:
                when = row.round, row.epoch
                if when not in slices:  # all that came in one round are about the same probes
                    slices[when] = StoredLabels.from_bytes(self._store.blob(row.content)).slice
                if (row.device, slices[when]) not in seen:
                    seen.add((row.device, slices[when]))
                    yield row
                    continue
            self._store.delete_payload(self._federation, row)

    def _trim_maps(self, state: Federation) -> Iterable[PayloadRow]:
        """Keep each device's last map, and of another public set that it may be asked about the last one too."""
        editions = state.editions
        asked = {edition.public_set for edition in (editions.current, editions.staged) if edition is not None}
        rows = self._store.payloads(self._federation, Kind.COMPETENCE.value)
        for _, its in groupby(rows, key=lambda row: row.device):
            last, *others = its
            yield last
            seen = {self._public_set(last)} if others else set()
            for row in others:
                if (public_set := self._public_set(row)) in asked - seen:
                    seen.add(public_set)
                    yield row
                else:
                    self._store.delete_payload(self._federation, row)

    def _public_set(self, row: PayloadRow) -> bytes:
        return codec.decode(self._store.blob(row.content), CompetenceMap, limit=MAX_PAYLOAD_BYTES).public_set

    def keep_counters(self, counters: Counter[str]) -> None:
        self._store.set_meta(self._counters_key, json.dumps(counters).encode())

    def counters(self) -> Counter[str]:
        """Return what was counted until the last round ended."""
        return Counter(json.loads(self._store.meta(self._counters_key) or b"{}"))

    def counts(self) -> dict[str, object]:
        """Return what an operator may want to know beside the state."""
        return {"counters": dict(sorted(self.counters().items())), "quarantine": self.quarantine.count()}
