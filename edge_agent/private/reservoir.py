"""Which labelled rows stay when there is room for `capacity` of them, and their classes are not equally common.

Class-balancing reservoir sampling (CBRS), Chrysakis and Moens, "Online Continual Learning from Imbalanced Data", ICML
2020, algorithm 1. For each row of a stream, with its class c:

    there is room            it stays
    c was never the largest  it stays, in the place of a random row of the largest class
    c is, or was once        it stays with probability m_c / n_c, in the place of a random row of its own class

m_c rows of class c are here, n_c came by. A class that was the largest once, since there is no more room, is called
full; the last line is algorithm R of Vitter 1985 among the rows of one class. So rare classes are kept whole while
common ones share what is left evenly, and the rows of each class are a uniform sample of those of that class that came
by (the paper's section 3).

Rows also leave because they are too old. Those that are left of a class are still a uniform sample of what came by
within the age, so n_c shrinks in proportion; and a class that has shrunk to less than half of the largest is full no
more, or one that died out could never come back. Where the world has changed, n_c begins anew at m_c (`begin_anew`).

What is deliberately absent: rows and time. Randomness is an argument.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from fd_protocol.identity import require
from fd_protocol.schema import keyed


@dataclass(frozen=True, slots=True)
class Counts:
    """What a reservoir remembers beside its rows, by class number in text.

    Attributes:
        seen: n_c; a fraction where rows have grown too old.
        full: classes that are, or were once, the largest.
    """

    seen: Mapping[str, float] = field(default_factory=dict, metadata={"key": 1})
    full: tuple[int, ...] = keyed(2, default=())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a row stays, and which one goes for it."""

    is_kept: bool
    displaced: int | None = None


class BalancedReservoir:
    """Row numbers by class.

    Args:
        capacity: most rows; 0 = none ever.
        rng: draws who goes.
        members: class of each row that is here already.
        counts: as `counts` said when they were.
    """

    def __init__(
        self,
        capacity: int,
        rng: random.Random,
        members: Mapping[int, int] | None = None,
        counts: Counts = Counts(),
    ) -> None:
        require(capacity >= 0, f"a reservoir has room for 0 rows or more, not {capacity}")
        self._capacity, self._rng = capacity, rng
        self._rows: dict[int, list[int]] = {}
        self._classes: dict[int, int] = {}
        self._seen = {int(name): number for name, number in counts.seen.items()}
        self._full = set(counts.full)
        for row, label in (members or {}).items():
            self._put(row, label)

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, row: int) -> bool:
        return row in self._classes

    @property
    def counts(self) -> Counts:
        return Counts({str(label): number for label, number in sorted(self._seen.items())}, tuple(sorted(self._full)))

    def sizes(self) -> dict[int, int]:
        """Return how many rows of each class are here."""
        return {label: len(rows) for label, rows in sorted(self._rows.items())}

    def judge(self, label: int) -> Verdict:
        """Count a row of class `label`, and say whether it is to stay. `keep` it then: nothing has moved yet."""
        self._seen[label] = self._seen.get(label, 0.0) + 1
        if len(self) < self._capacity:
            return Verdict(is_kept=True)
        if not self._capacity:
            return Verdict(is_kept=False)
        if label not in self._full:
            largest = self._largest()
            return Verdict(is_kept=True, displaced=self._any_of(largest[self._rng.randrange(len(largest))]))
        if label in self._rows and self._rng.random() <= len(self._rows[label]) / self._seen[label]:
            return Verdict(is_kept=True, displaced=self._any_of(label))
        return Verdict(is_kept=False)

    def keep(self, row: int, label: int, verdict: Verdict) -> None:
        """Do what `judge` has said."""
        if verdict.displaced is not None:
            self._take(verdict.displaced)
        self._put(row, label)

    def relabel(self, row: int, label: int) -> None:
        """The row was of another class all along."""
        old = self._take(row)
        self._seen[old] = max(float(len(self._rows.get(old, ()))), self._seen.get(old, 0.0) - 1)
        self._seen[label] = self._seen.get(label, 0.0) + 1
        self._put(row, label)

    def forget(self, row: int) -> None:
        """The row is too old, or no longer what its label says; see above for what follows."""
        label = self._classes[row]
        before = len(self._rows[label])
        self._take(row)
        self._seen[label] = self._seen.get(label, 0.0) * (before - 1) / before
        if before == 1:
            del self._seen[label]
        most = max(map(len, self._rows.values()), default=0)
        self._full = {label for label in self._full if 2 * len(self._rows.get(label, ())) >= most > 0}

    def begin_anew(self) -> None:
        """Count the rows that are here as all that ever came by: those that come take their places soon."""
        self._seen = {label: float(len(rows)) for label, rows in self._rows.items()}

    def thin(self) -> list[int]:
        """Let go of rows for which there is no more room, any of the largest class; return which went."""
        gone = []
        while len(self) > self._capacity:
            largest = self._largest()
            row = self._any_of(largest[self._rng.randrange(len(largest))])
            self._take(row)
            gone.append(row)
        return gone

    def _largest(self) -> list[int]:
        most = max(map(len, self._rows.values()), default=0)
        return [label for label, rows in self._rows.items() if len(rows) == most]

    def _any_of(self, label: int) -> int:
        rows = self._rows[label]
        return rows[self._rng.randrange(len(rows))]

    def _put(self, row: int, label: int) -> None:
        self._rows.setdefault(label, []).append(row)
        self._classes[row] = label
        if len(self) >= self._capacity:
            self._full.update(self._largest())

    def _take(self, row: int) -> int:
        label = self._classes.pop(row)
        rows = self._rows[label]
        rows[rows.index(row)] = rows[-1]
        rows.pop()
        if not rows:
            del self._rows[label]
        return label
