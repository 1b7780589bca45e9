"""Fold and reconcile: what joins a pure core to the world, in both programs.

    events --journal--> step(state, event) -> state --outstanding(state)--> effects --perform--> world
       ^                                                                                          |
       +------------------------------- results come back as events ------------------------------+

`outstanding` is level-triggered: it says what ought to be done in a state, not what has just changed. After a crash the
state is folded again and the same effects are outstanding again, so no "resume" code exists. An effect must be a
hashable value and harmless to perform twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

S = TypeVar("S")
V = TypeVar("V")
E = TypeVar("E", bound=Hashable)


class Reconciler(Generic[S, V, E]):
    """Holds a core's state and keeps the world in step with it.

    Args:
        state: folded from the journal.
        step: the core's `step(state, event) -> state`.
        outstanding: the core's `outstanding(state) -> effects`, in the order to perform them.
        journal: makes events durable; when it raises, the events have not happened.
        perform: starts one effect. Its result comes back later through `submit`, never as a call from inside.
    """

    def __init__(
        self,
        state: S,
        step: Callable[[S, V], S],
        outstanding: Callable[[S], Iterable[E]],
        journal: Callable[[Sequence[V]], None],
        perform: Callable[[E], None],
    ) -> None:
        self.state = state
        self._step = step
        self._outstanding = outstanding
        self._journal = journal
        self._perform = perform
        self._in_flight: set[E] = set()
        self._due: tuple[S, tuple[E, ...]] | None = None
        """The last state that was looked at, and what is outstanding in it."""

    def submit(self, events: Sequence[V]) -> None:
        """Journal the events, then `apply` them."""
        self._journal(events)
        self.apply(events)

    def apply(self, events: Iterable[V]) -> None:
        """Fold events that are durable already, then reconcile."""
        self.fold(events)
        self.reconcile()

    def adopt(self, state: S) -> None:
        """Go on from a state that was folded and made durable by the caller, then reconcile."""
        self.state = state
        self.reconcile()

    def fold(self, events: Iterable[V]) -> None:
        """Fold events and touch nothing else: the replay of a journal."""
        for event in events:
            self.state = self._step(self.state, event)

    def reconcile(self) -> None:
        """Perform what is outstanding and not in flight; forget what is in flight and no longer outstanding.

        An effect whose `perform` raises stays due, and so do those after it.
        """
        if self._due is None or self._due[0] is not self.state:
            self._due = self.state, tuple(self._outstanding(self.state))
        due = self._due[1]
        self._in_flight.intersection_update(due)
        for effect in due:
            if effect not in self._in_flight:
                self._perform(effect)
                self._in_flight.add(effect)

    def forget(self, effect: E) -> None:
        """Make an effect due again at the next `reconcile`: it failed, or its result was lost."""
        self._in_flight.discard(effect)

    def forget_all(self) -> None:
        """Make everything due again: the world may have lost it all, as a broker does that restarts."""
        self._in_flight.clear()
