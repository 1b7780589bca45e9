"""A private training, from its charge to the weights that it paid for; by the worker's own core."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.privacy import learner
from edge_agent.privacy.ledger import Entry, Ledger
from edge_agent.privacy.limits import noise_multiplier_of
from edge_agent.round.events import WarmedUp
from edge_agent.training.between import Between
from tests.edge_agent.privacy.private_device import PRIVACY, PrivateDevice
from tests.faults.marks import marked, marks

noise_multiplier_of(PRIVACY)  # a second's sums, which are remembered: once for all forks
_SAVES_AFTER = 15
"""Steps: a training keeps its progress now and then."""


class _Sparse(Between):
    def __init__(self) -> None:
        super().__init__()
        self._steps = 0

    def after_step(self, size_bytes, save):
        self._steps += 1
        if self._steps % _SAVES_AFTER == 0:
            save()


def device(folder: str, bundle: str) -> PrivateDevice:
    return PrivateDevice(Path(folder), bundle=Path(bundle))


def act(folder: str, bundle: str, seen: str) -> int:
    """Train, and leave a mark before each private row is read: the charge that pays for it."""
    return _train(device(folder, bundle), seen)


def _train(theirs: PrivateDevice, seen: str) -> int:
    train = learner.train_privately

    def tells(*arguments, **options):
        (paid,) = [entry for entry in theirs.ledger.entries() if entry.is_open] or [None]
        marked(seen, paid.digest if paid else "nothing")
        return train(*arguments, **options)

    learner.train_privately = tells
    return 0 if isinstance(theirs.core(between=_Sparse()).handle(theirs.warm_up()).event, WarmedUp) else 1


def by_the_clock(folder: str, bundle: str, seen: str) -> int:
    """As `act`, in the time that the machine's clock tells."""
    theirs = device(folder, bundle)
    theirs.now_s = time.time()
    return _train(theirs, seen)


def until_charged(folder: str, bundle: str, seen: str) -> int:
    """The same, and end when it has paid."""
    learner.train_privately = lambda *_, **__: sys.exit(3)
    theirs = device(folder, bundle)
    theirs.now_s = time.time()
    return 0 if isinstance(theirs.core().handle(theirs.warm_up()).event, WarmedUp) else 1


def check_one_charge(folder: str, bundle: str, seen: str) -> None:
    """There is one charge, and every training that began was paid for by it."""
    (entry,) = device(folder, bundle).ledger.entries()
    assert set(marks(seen)) == {entry.digest}
    assert not entry.is_open


def careless(folder: str, bundle: str, seen: str) -> int:
    """A device that pays when it is through: for the harness to find out."""
    charge, close = Ledger.charge, Ledger.close_charge
    later = []

    def defer(self, asked):
        later.append(asked)
        self._folder.mkdir(parents=True, exist_ok=True)
        return Entry(asked, "0" * 64)

    def pay(self, entry, bundle, theta):
        close(self, charge(self, later.pop()), bundle, theta)

    Ledger.charge, Ledger.close_charge, Ledger.key = defer, pay, lambda *_: bytes(32)
    return act(folder, bundle, seen)


def trusting(folder: str, bundle: str, seen: str) -> int:
    """A device that takes what it reads for what is on the disk."""
    Ledger.key = lambda self, _entry: self._key_path.read_bytes()
    return act(folder, bundle, seen)


def without_sync(folder: str, bundle: str, seen: str) -> int:
    """A device that believes that a write is on the disk."""
    os.fsync = lambda _: None
    return act(folder, bundle, seen)


def check(folder: str, bundle: str, seen: str) -> None:
    """Look at what is there, go on, and look again: every training that began has been paid for, once."""
    theirs = device(folder, bundle)
    spent = set(marks(seen))
    before = {entry.digest for entry in theirs.ledger.entries()}
    assert spent <= before, f"trained by {spent - before}, which nobody paid"
    said = theirs.core().handle(theirs.warm_up()).event
    assert said == WarmedUp(is_private=True), said
    (entry,) = theirs.ledger.entries()
    assert not entry.is_open
    assert entry.charge.terms == PRIVACY
    kept = checkpoints.load(theirs.private_checkpoint)
    assert kept is not None
    assert kept.charge == entry.digest
    assert [path.name for path in (theirs.folder / "privacy").iterdir()] == ["ledger"], "no key, and no copy of it"
