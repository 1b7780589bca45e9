"""How much a device may send: a token bucket of messages and one of bytes, for each device that has sent lately.

    tokens(t) = min(limit, tokens(s) + limit (t - s) / minute)        a message of n bytes takes 1 and n

So a device may send a minute's worth at once, and no more than that a minute for long. A device of which nothing is
remembered has full buckets, so the memory may forget whoever has been quiet longest.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from fd_protocol.errors import InvalidValueError

RATE_LIMITED = "rate_limited"
MAX_DEVICES = 65_536
"""Devices that are remembered; a few MB."""
_MINUTE_MS = 60_000
_PACKET_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class RateTerms:
    """Most messages and bytes of a device a minute; 0 = without limit."""

    messages_per_minute: int = 240
    bytes_per_minute: int = 16 << 20

    def __post_init__(self) -> None:
        if self.messages_per_minute < 0 or 0 < self.bytes_per_minute < _PACKET_BYTES or self.bytes_per_minute < 0:
            raise InvalidValueError(
                f"messages_per_minute is not negative, bytes_per_minute 0 or from {_PACKET_BYTES} on"
            )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a device may still send, as of `at_ms`."""

    messages: float
    bytes: float
    at_ms: int


def spend(before: Allowance | None, terms: RateTerms, size: int, at_ms: int) -> tuple[Allowance, bool]:
    """Return what is left after a message of `size` bytes at `at_ms`, and whether it may be sent; if not, all is left.

    `before` is None for a device that has rested. A clock that went back refills nothing.
    """
    messages, left = terms.messages_per_minute or math.inf, terms.bytes_per_minute or math.inf
    if before is not None:
        share = max(0, at_ms - before.at_ms) / _MINUTE_MS
        messages = min(messages, before.messages + share * terms.messages_per_minute)
        left = min(left, before.bytes + share * terms.bytes_per_minute)
    if messages < 1 or left < size:
        return Allowance(messages, left, at_ms), False
    return Allowance(messages - 1, left - size, at_ms), True


@dataclass(slots=True)
class Allowances:
    """Of every device. In memory alone: after a restart everybody has rested."""

    terms: RateTerms
    _by_device: OrderedDict[str, Allowance] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._by_device)

    def is_spent(self, device: str, at_ms: int) -> bool:
        """Whether `device` may send nothing at all now; to ask costs nothing."""
        before = self._by_device.get(device)
        return before is not None and not spend(before, self.terms, 0, at_ms)[1]

    def spend(self, device: str, size: int, at_ms: int) -> bool:
        """Whether `device` may send `size` bytes now; if so, they are taken off."""
        before = self._by_device.pop(device, None)
        self._by_device[device], is_allowed = spend(before, self.terms, size, at_ms)
        if len(self._by_device) > MAX_DEVICES:
            self._by_device.popitem(last=False)
        return is_allowed
