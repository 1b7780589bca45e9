"""Lives that ended in the middle of one piece of work, counted on the disk before the work begins.

A worker that dies costs an attempt, which the participant counts. Work that takes the whole machine down, where the
power supply gives way under load, leaves nobody to count: the next life finds it outstanding and begins it again, for
ever. So a life that begins work writes it down, and one that finds its predecessors' names there gives it up.
"""

from __future__ import annotations

import contextlib

from edge_agent.round.events import Work
from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.schema import from_item, to_item
from fd_runtime.storage.store import Store, StoreUnwritableError

MAX_LIVES = 5
_KEY = "work"


class Attempts:
    """What this device's lives have begun, in its store."""

    def __init__(self, store: Store, boot: int) -> None:
        self._store, self._boot = store, boot
        self._last: tuple[Work, int, int] | None = None

    def begin(self, work: Work) -> int:
        """Note that this life begins `work`, and return how many lives have, this one among them."""
        last, lives, boot = self._last or self._load()
        if last == work:
            lives += boot != self._boot
        else:
            lives = 1
        if (last, boot) != (work, self._boot):
            with contextlib.suppress(StoreUnwritableError):  # then this life does not count
                self._store.set_meta(_KEY, cbor.encode([to_item(work), lives, self._boot]))
        self._last = (work, lives, self._boot)
        return lives

    def _load(self) -> tuple[Work | None, int, int]:
        try:
            match cbor.decode(self._store.meta(_KEY) or b""):
                case [dict(item), int(lives), int(boot)]:
                    return from_item(Work, item), lives, boot
        except DecodeError:  # none, or of another version of ours
            pass
        return None, 0, 0
