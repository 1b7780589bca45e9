"""How much this device sends and receives in a month, both ways, and whether that is more than its owner allows.

The link counts (`fd_runtime.links.link.Traffic`): bytes of the TCP stream as the kernel counts them, so TLS, MQTT and
reconnects are in it, and headers of TCP and IP are not. Of a bundle that is downloaded its own bytes count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.training.sensors import clock_is_set
from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.schema import from_item, keyed, to_item
from fd_runtime.links.link import Traffic
from fd_runtime.storage.store import Store, StoreUnwritableError

_KEY = "data_use"
_KEEP_BYTES, _KEEP_S = 1_000_000, 3600.0
"""What a power cut may cost the count; each writing wears the flash."""


@dataclass(frozen=True, slots=True)
class DataUsed:
    """Bytes of one month: `month` is such as 202611; 0: before the clock was ever set."""

    month: int = keyed(1, default=0)
    sent_bytes: int = keyed(2, default=0)
    received_bytes: int = keyed(3, default=0)

    @property
    def total_bytes(self) -> int:
        return self.sent_bytes + self.received_bytes


class DataUse:
    """The count of a device, in its store.

    Args:
        store: of the device; belongs to the thread that asks.
        most_mb: both ways a month; 0 = no bound.
        traffic: of the link, since it was made, and whatever else is to count.
        clock: UTC seconds.
    """

    def __init__(
        self, store: Store, most_mb: float, traffic: Callable[[], Traffic], clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._most_bytes, self._traffic, self._clock = store, most_mb * 1e6, traffic, clock
        self._seen = traffic()
        self._used = self._kept = used(store)
        self._kept_at_s = clock()

    def look(self) -> DataUsed:
        """Return this month's total as it is now."""
        seen, before = self._traffic(), self._seen
        self._seen = seen
        self.add(seen.sent_bytes - before.sent_bytes, seen.received_bytes - before.received_bytes)
        return self._used

    def add(self, sent_bytes: int, received_bytes: int) -> None:
        """Count what went another way than over the link."""
        month = _month(self._clock())
        # A clock that runs back, or is not set yet, leaves the month as it is.
        now = self._used if month <= self._used.month else DataUsed(month)
        self._used = DataUsed(now.month, now.sent_bytes + sent_bytes, now.received_bytes + received_bytes)
        new_bytes = self._used.total_bytes - self._kept.total_bytes
        if now.month != self._kept.month or new_bytes >= _KEEP_BYTES or self._is_long_ago(new_bytes):
            self.keep()

    def keep(self) -> None:
        """Write the total down; where the disk takes nothing, later."""
        self._kept_at_s = self._clock()
        try:
            self._store.set_meta(_KEY, cbor.encode(to_item(self._used)))
        except StoreUnwritableError:
            return
        self._kept = self._used

    @property
    def is_spent(self) -> bool:
        """Whether this month's bound has been reached."""
        return self.look().total_bytes >= self._most_bytes > 0

    def _is_long_ago(self, new_bytes: int) -> bool:
        return new_bytes > 0 and abs(self._clock() - self._kept_at_s) >= _KEEP_S


def used(store: Store) -> DataUsed:
    """Return the total as it was last written down."""
    try:
        return from_item(DataUsed, cbor.decode(store.meta(_KEY) or cbor.encode({})))
    except DecodeError:
        return DataUsed()


def _month(utc_s: float) -> int:
    if not clock_is_set(utc_s):
        return 0
    utc = time.gmtime(utc_s)
    return 100 * utc.tm_year + utc.tm_mon
