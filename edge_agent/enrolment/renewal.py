"""What is due about a device's certificate, and when. Pure: time is an argument.

    no certificate, or another token than the last  -> ENROL
    two thirds of its life, and a little, have gone -> RENEW
    else                                            -> NOTHING

The little is up to a twelfth of its life, by the certificate itself: devices that enrolled in one hour do not all come
back in one hour, and one that restarts keeps its day. A renewal has a quarter of the life left for servers that are
away; from the last eighth on it is worth an alarm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Due(str, Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    ENROL = "enrol"
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Life:
    """Of a certificate: when it began and ends, UTC."""

    begin: datetime
    end: datetime


def renew_at(life: Life, device: str) -> datetime:
    """Return when the certificate of a device is to be renewed."""
    draw = hashlib.sha256(f"{device} {life.end.isoformat()}".encode()).digest()[:4]
    share = 2 / 3 + int.from_bytes(draw, "big") / 2**32 / 12
    return life.begin + share * (life.end - life.begin)


def due(life: Life | None, device: str, now: datetime, *, has_new_token: bool) -> Due:
    """Return what is due.

    Args:
        life: of the certificate that is there; None = there is none.
        device: whose.
        now: UTC.
        has_new_token: there is one that this device has not used yet.
    """
    if life is None or has_new_token:
        return Due.ENROL
    return Due.RENEW if now >= renew_at(life, device) else Due.NOTHING


def is_late(life: Life, now: datetime) -> bool:
    """Whether a certificate should have been renewed long ago, so that somebody should look."""
    return now >= life.begin + 7 / 8 * (life.end - life.begin)
