"""Whether a package may be unpacked at all: the one place that says so.

Digests, for now: the federation's nudge names them, and who may write it is the broker's ACL. Signed metadata (TUF)
comes in here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.slots.machine import Offered
from fd_protocol.identity import sha256


@dataclass(frozen=True, slots=True)
class Verified:
    """The package is what was offered."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """It is not; `reason` is one line."""

    reason: str


Verdict: TypeAlias = Verified | Unverified


def verify(package: bytes, offered: Offered) -> Verdict:
    """Return whether `package` is the one that `offered` names."""
    if len(package) != offered.package_bytes:
        return Unverified(f"{len(package)} bytes, {offered.package_bytes} were offered")
    digest = sha256(package).hex()
    if digest != offered.package:
        return Unverified(f"digest {digest[:12]}, {offered.package[:12]} was offered")
    return Verified()
