"""Who and which: names, digests and round ids."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError, shown
from fd_protocol.schema import keyed

DIGEST_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


MAX_TEXT_CHARACTERS = 512


def require(condition: bool, claim: str) -> None:  # noqa: FBT001 - reads as `require(claim)`
    """Let a value exist only if `condition` holds.

    Raises:
        InvalidValueError: it does not; says the claim.
    """
    if not condition:
        raise InvalidValueError(claim)


def check_text(text: str, what: str) -> str:
    """Return `text` if it may stand on one line of a log or a dashboard; empty is allowed.

    Raises:
        InvalidValueError: over 512 characters, or control characters in it.
    """
    if len(text) > MAX_TEXT_CHARACTERS or not text.isprintable():
        raise InvalidValueError(f"{what} must be one printable line of at most {MAX_TEXT_CHARACTERS} characters")
    return text


def check_name(name: str, what: str) -> str:
    """Return `name` if it may stand in a topic, a certificate's common name and a file name.

    Raises:
        InvalidValueError: not 1 to 64 of `a-z 0-9 -`, or it starts with a dash.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"{what} {shown(name)} must be 1 to 64 of a-z, 0-9, '-', not starting with '-'")
    return name


def sha256(data: bytes) -> bytes:
    """The identity of bytes everywhere in fedistill."""
    return hashlib.sha256(data).digest()


def check_digest(digest: bytes, what: str) -> bytes:
    if len(digest) != DIGEST_BYTES:
        raise InvalidValueError(f"{what} must be a SHA-256 of {DIGEST_BYTES} bytes, not {len(digest)}")
    return digest


@dataclass(frozen=True, slots=True, order=True)
class RoundId:
    """(federation, epoch, number). The epoch is random and new whenever a server's database is created or restored."""

    federation: str = keyed(1)
    epoch: int = keyed(2)
    number: int = keyed(3)

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        if not 0 <= self.epoch < 1 << 63 or not 0 <= self.number < 1 << 31:
            raise InvalidValueError("epoch must fit 63 bits and a round number 31 bits")

    def __str__(self) -> str:
        return f"{self.federation}/{self.epoch & 0xFFFF:04x}/{self.number}"


def is_sampled(device: str, seed: bytes, fraction: float) -> bool:
    """Whether a device joins a round: sha256(seed || id)[:4] / 2^32 < fraction (DESIGN section 5.2)."""
    if fraction >= 1.0:
        return True
    draw = int.from_bytes(hashlib.sha256(seed + device.encode()).digest()[:4], "big")
    return draw / 2**32 < fraction
