"""A map from device names to values that never changes; a changed copy of it shares nearly everything with it.

    256 buckets, a device's told by the CRC-32 of its name; a change copies the buckets that it touches

So a core that hears one device of ten thousand copies forty entries, not ten thousand.

What is deliberately absent: an order. Whoever needs one sorts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")

_BUCKETS = 256


class ByDevice(Mapping[str, V]):
    """An immutable map; it equals any map with the same entries."""

    __slots__ = ("_buckets", "_count")

    def __init__(self, entries: Mapping[str, V] | None = None) -> None:
        buckets: list[dict[str, V]] = [{} for _ in range(_BUCKETS)]
        for device, value in (entries or {}).items():
            buckets[_bucket_of(device)][device] = value
        self._buckets: tuple[Mapping[str, V], ...] = tuple(buckets)
        self._count = sum(map(len, buckets))

    def changed(self, entries: Mapping[str, V]) -> ByDevice[V]:
        """Return a copy with these entries too, in place of what it has of the same devices."""
        copies: dict[int, dict[str, V]] = {}
        for device, value in entries.items():
            number = _bucket_of(device)
            if number not in copies:
                copies[number] = dict(self._buckets[number])
            copies[number][device] = value
        return self._with(copies)

    def without(self, device: str) -> ByDevice[V]:
        """Return a copy that has nothing of `device`."""
        number = _bucket_of(device)
        return self._with({number: {name: value for name, value in self._buckets[number].items() if name != device}})

    def _with(self, buckets: Mapping[int, Mapping[str, V]]) -> ByDevice[V]:
        """Return a copy with these buckets in the place of those with the same numbers."""
        all_buckets, count = list(self._buckets), self._count
        for number, bucket in buckets.items():
            count += len(bucket) - len(all_buckets[number])
            all_buckets[number] = bucket
        copy: ByDevice[V] = object.__new__(ByDevice)
        copy._buckets, copy._count = tuple(all_buckets), count
        return copy

    def __getitem__(self, device: str) -> V:
        return self._buckets[_bucket_of(device)][device]

    def __iter__(self) -> Iterator[str]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"ByDevice({dict(self)})"


def _bucket_of(device: str) -> int:
    return zlib.crc32(device.encode()) % _BUCKETS
