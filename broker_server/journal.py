"""A federation's memory in the store: snapshot and events, and what must go when a round has ended.

Memory on disk: the state that the journal folds to; the last contributions of every device that still count; the
competence map of every device that ever sent one (a few hundred bytes; a device sends its map once); records of as many
rounds as the settings say (`scribe`); blobs that one of these names. All else goes when a round ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import reduce

from broker_server.events import Event, from_journal, to_journal
from broker_server.federation import Federation, from_snapshot, named_blobs, step, to_snapshot
from broker_server.quarantine import Quarantine
from broker_server.voices import Absence
from fd_protocol.messages import Kind
from fd_runtime.store import PayloadRow, Store

SNAPSHOT_EVENTS = 10_000
"""A journal this long is folded even if no round ends: devices may come and go for weeks."""


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
        snapshot, entries = self._store.replay(self._federation)
        state = Federation() if snapshot is None else from_snapshot(snapshot)
        self._events = len(entries)
        return reduce(step, (from_journal(kind, body) for kind, body in entries), state)

    def write(self, events: Sequence[Event], at_ms: int) -> None:
        for event in events:
            kind, body = to_journal(event)
            self._store.append(self._federation, kind, at_ms, body)
        self._events += len(events)

    @property
    def is_long(self) -> bool:
        return self._events >= SNAPSHOT_EVENTS

    def fold(self, state: Federation) -> None:
        """Put the state in the place of its events."""
        self._store.snapshot(self._federation, to_snapshot(state))
        self._events = 0

    def tidy(self, state: Federation, absence: Absence, named: Collection[bytes] = (), *, words: int = 1) -> None:
        """Drop what no later round can ask for. Call it when no round is open.

        Args:
            state: of the federation.
            absence: how contributions fade.
            named: digests of blobs that stay as well.
            words: contributions of a device that stay while they count: rounds may ask for other probes each time.
        """
        kept = [*self._trim(Kind.CONTRIBUTION, state, absence, words), *self._trim(Kind.COMPETENCE, state, None)]
        self._store.delete_parts(self._federation)
        self._store.delete_blobs_except({row.content for row in kept} | named_blobs(state) | set(named))

    def _trim(self, kind: Kind, state: Federation, absence: Absence | None, words: int = 1) -> Iterable[PayloadRow]:
        """Keep each device's last payloads, where they still count; yield what is kept."""
        seen: Counter[str] = Counter()
        for row in self._store.payloads(self._federation, kind.value):
            seen[row.device] += 1
            if seen[row.device] <= words and (absence is None or absence.weight(state.number + 1 - row.round)):
                yield row
            else:
                self._store.delete_payload(self._federation, row)

    def keep_counters(self, counters: Counter[str]) -> None:
        self._store.set_meta(self._counters_key, json.dumps(counters).encode())

    def counters(self) -> Counter[str]:
        """Return what was counted until the last round ended."""
        return Counter(json.loads(self._store.meta(self._counters_key) or b"{}"))

    def counts(self) -> dict[str, object]:
        """Return what an operator may want to know beside the state."""
        return {"counters": dict(sorted(self.counters().items())), "quarantine": self.quarantine.count()}
