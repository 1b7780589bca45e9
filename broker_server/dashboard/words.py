"""How values are written on a page: short, aligned, in the reader's units. What is not known is a dash."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from functools import lru_cache

UNKNOWN = "\N{EN DASH}"
_UNITS = ("kB", "MB", "GB", "TB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0..1, as in `84.6 %`."""
    if share is None or math.isnan(share):
        return UNKNOWN
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def points(share: float | None) -> str:
    """A difference of shares in points of a hundred, as in `+4.2`."""
    if share is None or math.isnan(share):
        return UNKNOWN
    return f"{100 * share:+.1f}"


def number(value: float | None, digits: int = 2) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:,.{digits}f}"


def plain(value: float) -> str:
    """A number of which nothing is known but its value: four digits that matter."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def count(value: float | None) -> str:
    return number(value, 0)


def size(value_bytes: float | None) -> str:
    """Bytes in powers of 1000, three digits that matter."""
    if value_bytes is None or math.isnan(value_bytes):
        return UNKNOWN
    if abs(value_bytes) < 1000:
        return f"{value_bytes:.0f}\N{NO-BREAK SPACE}B"
    for unit in _UNITS:
        value_bytes /= 1000
        if abs(value_bytes) < 999.5 or unit == _UNITS[-1]:
            break
    digits = 0 if abs(value_bytes) >= 99.5 else 1
    return f"{value_bytes:,.{digits}f}\N{NO-BREAK SPACE}{unit}"


def span(seconds: float) -> str:
    """A length of time by its two greatest units, as in `3 h 12 min`."""
    left = round(abs(seconds))
    words: list[str] = []
    for unit_s, unit in _SPANS:
        whole, left = divmod(left, unit_s)
        if whole or (unit_s == 1 and not words):
            words.append(f"{whole}\N{NO-BREAK SPACE}{unit}")
        elif words:
            break
    return " ".join(words[:2])


def ago(at_ms: int, now_ms: int) -> str:
    """When something was, seen from now; 0 = never."""
    if not at_ms:
        return "never"
    return f"{span((now_ms - at_ms) / 1000)} ago" if now_ms - at_ms >= 1000 else "now"


def moment(at_ms: int) -> str:
    """A moment in UTC, to the second; 0 = never."""
    return f"{_utc(at_ms):%Y-%m-%d %H:%M:%S}" if at_ms else UNKNOWN


def iso(at_ms: int) -> str:
    """A moment as `<time datetime>` wants it."""
    return f"{_utc(at_ms):%Y-%m-%dT%H:%M:%SZ}"


@lru_cache(1 << 16)
def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that puts `press-2` before `press-10`."""
    return tuple((text, int(digits or 0)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name))


def short(digest: bytes) -> str:
    """The first digits of a digest; enough to tell two apart."""
    return digest.hex()[:12] if digest else UNKNOWN


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc)
