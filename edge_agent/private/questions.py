"""Which unlabelled rows are worth asking a person about: the least sure that came by, each asked once.

How sure the model is of a row is the margin between the two likeliest classes (Scheffer, Decomain and Wrobel 2001,
"Active Hidden Markov Models for Information Extraction"; the survey of Settles 2009, section 3.1, compares it):

    margin = p1 - p2, the smallest first        2 p1 - 1 where only p1 is known: the same for two classes, no more for
                                                others

Rules:
- A row that was shown to someone is theirs until they answer, pass, or its time is up: none takes its place.
- Of rows that one source saw within `every_ms`, only the least sure is asked about: a camera sees one odd thing in
  fifty frames, and one answer is enough for it.

What is deliberately absent: samples, clocks, and what becomes of a row that leaves (`store`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row as far as questions go; `is_shown`: someone has been asked about it."""

    margin: float
    at_ms: int
    source: str
    is_shown: bool = False


def margin_of(confidence: float, margin: float | None) -> float:
    """Return how sure the model is, 0 to 1."""
    return 2 * confidence - 1 if margin is None else margin


def places_for(
    candidate: Candidate, present: Mapping[int, Candidate], capacity: int, every_ms: float
) -> Sequence[int] | None:
    """Return which rows go for `candidate`, perhaps none; None: it is not worth asking about.

    Args:
        candidate: a new row.
        present: rows that are in question, by number.
        capacity: most of them.
        every_ms: see above.
    """
    near = {row: one for row, one in present.items() if _are_near(one, candidate, every_ms)}
    if any(one.is_shown or one.margin <= candidate.margin for one in near.values()):
        return None
    if near:
        return list(near)
    if len(present) < capacity:
        return []
    unseen = {row: one.margin for row, one in present.items() if not one.is_shown}
    surest = max(unseen, key=unseen.__getitem__, default=None)
    return [surest] if surest is not None and unseen[surest] > candidate.margin else None


def in_order(present: Mapping[int, Candidate]) -> list[int]:
    """Return the rows in the order in which to ask: those that were shown already, then the least sure."""
    return sorted(present, key=lambda row: (not present[row].is_shown, present[row].margin, row))


def _are_near(one: Candidate, other: Candidate, every_ms: float) -> bool:
    return one.source == other.source and abs(one.at_ms - other.at_ms) < every_ms
