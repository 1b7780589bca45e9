"""JSON messages -> readings, one number for each field. Pure: time is an argument.

Two ways to read a stream:
- by message: a message that holds any of the fields is a reading; what it lacks is missing.
- by the latest: a reading is what was last said of each field, when it is asked for or when any message comes; what was
  never said, or too long ago, is missing.

A field says what becomes of a reading that misses it: see `FieldSettings.missing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.json_paths import NOTHING, find
from edge_agent.sources.settings import FieldSettings
from edge_agent.sources.topic_filters import matches


def number_of(value: Any, field: FieldSettings) -> float | None:
    """Return what a JSON value is to a field, scaled; None: it is missing."""
    if isinstance(value, str):
        value = field.words[value] if value in field.words else _parsed(value)
    if not isinstance(value, (int, float)):  # a bool is an int, and NOTHING is neither
        return None
    try:
        number = float(value) * field.scale + field.offset
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Said:
    """The last that was said of a field."""

    number: float
    at_s: float


class Stream:
    """What was said in one stream.

    Args:
        fields: in the order of a reading.
        stale_s: what was said longer ago is missing; 0 = nothing ever is.
        by_message: see the module.
    """

    def __init__(self, fields: Sequence[FieldSettings], *, stale_s: float, by_message: bool) -> None:
        self._fields, self._stale_s, self._by_message = fields, stale_s, by_message
        self._last: list[Said | None] = [None] * len(fields)

    @property
    def has_heard(self) -> bool:
        """Whether anything was ever said of any field."""
        return any(said is not None for said in self._last)

    def hear(self, topic: str, document: Any, now_s: float) -> Sequence[float] | None:
        """Take a message in; return the reading that it makes, if it makes one."""
        found = {
            place: number
            for place, field in enumerate(self._fields)
            if not field.topic or matches(field.topic, topic)
            if (number := number_of(find(document, field.path), field)) is not None
        }
        if not found:
            return None
        for place, number in found.items():
            self._last[place] = Said(number, now_s)
        return self._complete(found) if self._by_message else self.latest(now_s)

    def latest(self, now_s: float) -> Sequence[float] | None:
        """Return a reading of what was last said; None: a field is missing that must not be."""
        return self._complete(
            {
                place: said.number
                for place, said in enumerate(self._last)
                if said is not None and (not self._stale_s or now_s - said.at_s <= self._stale_s)
            }
        )

    def _complete(self, found: Mapping[int, float]) -> Sequence[float] | None:
        reading = []
        for place, field in enumerate(self._fields):
            number = found.get(place)
            if number is None:
                number = self._instead(place, field)
            if number is None:
                return None
            reading.append(number)
        return reading

    def _instead(self, place: int, field: FieldSettings) -> float | None:
        match field.missing:
            case "nan":
                return math.nan
            case "default":
                return field.default
            case "last":
                said = self._last[place]
                return None if said is None else said.number
            case "skip":
                return None


def value_at(document: Any, path: str) -> Any:
    """Return the text or number at `path`; None: there is none, or no path."""
    value = find(document, path) if path else NOTHING
    return value if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
