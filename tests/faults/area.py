"""What a fault may hit: a part of the device, or of its server, that keeps files.

prepare --> act, with a fault somewhere --> check: in a new process, what must hold holds, and it goes on to its end
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.injection import Case, Own, Point, cases, count, disturb, few_of_each
from tests.faults.warm import PATIENCE_S, Fork, Warm

ALL = os.environ.get("FEDISTILL_CUTS") == "all"
"""Every case; else a sample."""
ACT = "act"
LOOKS = 1
"""At how many of its looks at a file each call fails."""


class Area(ABC):
    """One part.

    Attributes:
        name: for people.
        module: with the functions of its processes.
        acts: what it does: the arguments of `prepare`.
        controls: functions that do the same in a way that must fail.
        apart: files in its folder that are not its own.
        wire: what it says over TCP is disturbed as well.
        patience_s: longest that it may take; then power is cut.
        last: folder of the last case.
    """

    name: str
    module: str
    acts: tuple[str, ...] = (ACT,)
    controls: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    wire = False
    patience_s = PATIENCE_S

    def __init__(self, folder: Path) -> None:
        """Make, in `folder`, what all cases share."""
        self.folder, self.warm = folder, Warm(self.module, folder / "warm")
        self._made, self.last = 0, folder

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Any]:
        area = cls(folder)
        try:
            yield area
        finally:
            area.close()

    def close(self) -> None:
        self.warm.close()

    @abstractmethod
    def prepare(self, place: Path, act: str) -> list[Any]:
        """Make the files of one case in `place`, those that are disturbed in `place / "state"`; return arguments."""

    def place(self) -> Path:
        self._made += 1
        place = self.folder / f"case-{self._made}"
        place.mkdir()
        self.last = place
        return place

    def own(self, place: Path) -> Own:
        return Own(place / "state", self.apart)

    def cases(self) -> list[Case]:
        """Return all that there are."""
        found = []
        for act in self.acts:
            place = self.place()
            arguments = self.prepare(place, act)
            points = count(self.warm, self.own(place), place / "log", ACT, *arguments, wire=self.wire)
            found += cases(act, self.points(act, few_of_each(points, LOOKS)))
        return found

    def points(self, act: str, found: Sequence[Point]) -> Sequence[Point]:
        """Return those of an act that no other act has."""
        return found

    def play(self, case: Case, function: str = ACT) -> str:
        """Let one case happen; return what is wrong afterwards, empty: nothing."""
        place = self.place()
        arguments = self.prepare(place, case.act)
        disturb(self.warm, case.point, case.fault, function, *arguments, patience_s=self.patience_s)
        return self.wrong(place, arguments)

    # What is beside its files: the other side of a wire. Most areas have nothing there.

    def between(self, fork: Fork, arguments: Sequence[Any]) -> None:  # noqa: B027 - most have nothing to do
        """Go on with the other side, while a fork runs."""

    def world(self, arguments: Sequence[Any]) -> Any:
        """Return how the other side stands."""
        return None

    def go_back_to(self, world: Any, arguments: list[Any]) -> None:  # noqa: B027 - likewise
        """Let the other side stand as it did."""

    def leave(self) -> None:  # noqa: B027 - likewise
        """The case is over."""

    def wrong(self, place: Path, arguments: Sequence[Any]) -> str:
        ended = self.warm.run("check", *arguments)
        return "" if ended.returncode == 0 else ended.errors or f"status {ended.returncode}"


def sample(found: Sequence[Case], most: int, seed: str) -> Collection[Case]:
    """Return all, or so many that are not wanted all: of each act and fault about as many."""
    if ALL:
        return found
    shuffled = random.Random(seed).sample(found, len(found))
    groups: dict[tuple[str, str], int] = {}
    ranked = []
    for case in shuffled:
        rank = groups[case.act, case.fault] = groups.get((case.act, case.fault), 0) + 1
        ranked.append((rank, case))
    return [case for _, case in sorted(ranked, key=lambda one: one[0])[:most]]
