"""How devices are on their way to other bundles: a row a device, and how many are where.

A row is a named value in the store (`FED/deliveries/DEVICE`): a backup and an export hold it, `forget` erases it. It is
written in the transaction of what it tells of. What a rollout is told of is counts; the rules are in `delivery`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from broker_server.core import delivery
from broker_server.core.delivery import Delivery, Standing
from fd_protocol import cbor
from fd_protocol.messages import Command
from fd_protocol.schema import from_item, to_item
from fd_protocol.topics import MODEL
from fd_runtime.storage.store import Store

Outcomes = Mapping[Standing, int]
Patience = Mapping[str, int]
"""By bundle that is under way (`delivery.id_of`): how long a device of it may be silent, in milliseconds."""


class Deliveries:
    """One federation's; every write belongs to the caller's transaction."""

    def __init__(self, store: Store, federation: str) -> None:
        self._store, self._federation = store, federation
        self._counts: dict[str, Counter[Standing]] | None = None
        """By bundle; None = to be counted."""
        self._watched: dict[str, Delivery] = {}
        """Devices that may come to be lost; complete where `_counts` are."""

    def hear(self, device: str, said: Command, at_ms: int, *, is_kept: bool = False) -> bool:
        """Write down what a device says; return whether it is about a bundle, and news."""
        if said.command != MODEL:
            return False
        before = find(self._store, self._federation, device)
        return self._keep(before, delivery.say(before, device, said, at_ms, is_kept=is_kept))

    def ask(self, device: str, bundle: bytes, boot: int, at_ms: int) -> bool:
        """Write down that a device which is there is to run a bundle; return whether that is news."""
        before = find(self._store, self._federation, device)
        return self._keep(before, delivery.ask(before, device, delivery.id_of(bundle), boot, at_ms))

    def be_born(self, device: str, boot: int, at_ms: int) -> bool:
        """Write down that a device is there; return whether that is news to its delivery."""
        before = find(self._store, self._federation, device)
        return before is not None and self._keep(before, delivery.be_born(before, boot, at_ms))

    def be_gone(self, device: str, boot: int, at_ms: int) -> bool:
        """Write down that a device is gone; return whether that is news to its delivery."""
        before = find(self._store, self._federation, device)
        return before is not None and self._keep(before, delivery.be_gone(before, boot, at_ms))

    def next_loss_ms(self, patience: Patience) -> int | None:
        """Return when patience with the next device is over; None = with none, as far as is known."""
        if not patience:
            return None
        self._count()
        due = [delivery.lost_ms(one, patience[one.bundle]) for one in self._watched.values() if one.bundle in patience]
        return min((at_ms for at_ms in due if at_ms is not None), default=None)

    def lose(self, patience: Patience, at_ms: int) -> list[Delivery]:
        """Write down which devices are lost by now; return them."""
        self._count()
        lost = []
        for one in [*self._watched.values()]:
            after = delivery.lose(one, patience[one.bundle], at_ms) if one.bundle in patience else one
            if self._keep(one, after):
                lost.append(after)
        return lost

    def outcomes(self, bundle: bytes) -> Outcomes:
        """Return how many devices are where with a bundle."""
        return self._count().get(delivery.id_of(bundle), Counter())

    def under_way(self, patience: Patience) -> list[str]:
        """Return the devices that have not ended with a bundle that is under way, in no order."""
        known = stored(self._store, self._federation)
        return [one.device for one in known if one.bundle in patience and not one.state.has_ended]

    def count_anew(self) -> None:
        """Forget the counts: a transaction was rolled back, or rows are gone."""
        self._counts, self._watched = None, {}

    def _keep(self, before: Delivery | None, after: Delivery | None) -> bool:
        if after is None or after == before:
            return False
        self._store.set_meta(_key(self._federation, after.device), cbor.encode(to_item(after)))
        if self._counts is not None:
            if before is not None:
                self._counts[before.bundle][before.standing] -= 1
            self._note(after, self._counts)
        return True

    def _count(self) -> dict[str, Counter[Standing]]:
        if self._counts is None:
            counts: dict[str, Counter[Standing]] = {}
            for one in stored(self._store, self._federation):
                self._note(one, counts)
            self._counts = counts
        return self._counts

    def _note(self, one: Delivery, counts: dict[str, Counter[Standing]]) -> None:
        counts.setdefault(one.bundle, Counter())[one.standing] += 1
        if delivery.lost_ms(one, 0) is None:
            self._watched.pop(one.device, None)
        else:
            self._watched[one.device] = one


def stored(store: Store, federation: str) -> Iterator[Delivery]:
    """Yield what is known of each device."""
    for _, value in store.metas(_prefix(federation)):
        yield from_item(Delivery, cbor.decode(value))


def lost(store: Store, federation: str, bundle: bytes) -> tuple[Delivery, ...]:
    """Return the devices that are lost on their way to a bundle, in the order of names."""
    wanted = delivery.id_of(bundle)
    found = [one for one in stored(store, federation) if one.bundle == wanted and one.standing is Standing.LOST]
    return tuple(sorted(found, key=lambda one: one.device))


def find(store: Store, federation: str, device: str) -> Delivery | None:
    value = store.meta(_key(federation, device))
    return None if value is None else from_item(Delivery, cbor.decode(value))


def forget(store: Store, federation: str, device: str) -> None:
    """Erase what is known of a device's way."""
    store.delete_metas(_key(federation, device), b"")


def _prefix(federation: str) -> str:
    return f"{federation}/deliveries/"


def _key(federation: str, device: str) -> str:
    """It ends in a stroke: keys are deleted by prefix, and another device's name may begin alike."""
    return f"{_prefix(federation)}{device}/"
