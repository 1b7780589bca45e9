"""How devices are on their way to other bundles, as they say it: the state of the command `model`, which nobody gave.

A row a device, a named value in the store (`FED/deliveries/DEVICE`): a backup and an export hold it, `forget` erases
it. It is written in the transaction of the message that it tells of. What a rollout is told of is counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fd_protocol import cbor
from fd_protocol.messages import BUNDLE_ID_CHARACTERS, Command, CommandState
from fd_protocol.schema import from_item, keyed, to_item
from fd_protocol.topics import MODEL
from fd_runtime.store import Store

Outcomes = Mapping[CommandState, int]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The last that a device said of its way to another bundle.

    Attributes:
        device: who says it.
        bundle: the first characters of the digest that it is about, in hex.
        state, step, reason, result: as it says.
        at_ms: when that came.
    """

    device: str = keyed(1)
    bundle: str = keyed(2)
    state: CommandState = keyed(3)
    step: str = keyed(4, default="")
    reason: str = keyed(5, default="")
    result: Mapping[str, str] = field(default_factory=dict, metadata={"key": 6})
    at_ms: int = keyed(7, default=0)

    @property
    def words(self) -> str:
        """What came of it, for people."""
        return self.reason or self.result.get("outcome", "") or self.step


class Deliveries:
    """One federation's; every write belongs to the caller's transaction."""

    def __init__(self, store: Store, federation: str) -> None:
        self._store, self._federation = store, federation
        self._counts: dict[str, Counter[CommandState]] | None = None
        """By bundle; None = to be counted."""

    def hear(self, device: str, said: Command, at_ms: int) -> bool:
        """Write down what a device says; return whether it is about a bundle, and news."""
        if said.command != MODEL or said.state is CommandState.INIT:
            return False
        new = Delivery(device, said.id, said.state, said.step, said.reason, said.result, at_ms)
        before = find(self._store, self._federation, device)
        if before is not None and (before.bundle, before.state, before.step) == (new.bundle, new.state, new.step):
            return False
        self._store.set_meta(_key(self._federation, device), cbor.encode(to_item(new)))
        if self._counts is not None:
            if before is not None:
                self._counts[before.bundle][before.state] -= 1
            self._counts.setdefault(new.bundle, Counter())[new.state] += 1
        return True

    def outcomes(self, bundle: bytes) -> Outcomes:
        """Return how many devices are where with a bundle."""
        if self._counts is None:
            self._counts = {}
            for one in stored(self._store, self._federation):
                self._counts.setdefault(one.bundle, Counter())[one.state] += 1
        return self._counts.get(bundle.hex()[:BUNDLE_ID_CHARACTERS], Counter())

    def count_anew(self) -> None:
        """Forget the counts: a transaction was rolled back, or rows are gone."""
        self._counts = None


def stored(store: Store, federation: str) -> Iterator[Delivery]:
    """Yield what each device last said."""
    for _, value in store.metas(_prefix(federation)):
        yield from_item(Delivery, cbor.decode(value))


def find(store: Store, federation: str, device: str) -> Delivery | None:
    value = store.meta(_key(federation, device))
    return None if value is None else from_item(Delivery, cbor.decode(value))


def forget(store: Store, federation: str, device: str) -> None:
    """Erase what a device said."""
    store.delete_metas(_key(federation, device), b"")


def _prefix(federation: str) -> str:
    return f"{federation}/deliveries/"


def _key(federation: str, device: str) -> str:
    """It ends in a stroke: keys are deleted by prefix, and another device's name may begin alike."""
    return f"{_prefix(federation)}{device}/"
