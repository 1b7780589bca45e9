"""A reconciler keeps the world in step with a folded state."""

import pytest

from fd_runtime.reconciler import Reconciler


class BrokenError(Exception):
    """The disk or the world does not work."""


class World:
    """A core that counts: event n adds n; each whole ten of the state wants one effect."""

    def __init__(self):
        self.journal, self.performed, self.broken, self.looks = [], [], False, 0
        self.reconciler = Reconciler(0, int.__add__, self.outstanding, self.write, self.perform)

    def outstanding(self, state):
        self.looks += 1
        return [] if state < 0 else [f"lamp-{ten}" for ten in range(state // 10)]

    def write(self, events):
        if self.broken:
            raise BrokenError
        self.journal.extend(events)

    def perform(self, effect):
        if self.broken:
            raise BrokenError
        self.performed.append(effect)


@pytest.fixture
def world():
    return World()


def test_events_are_journalled_folded_and_acted_on(world):
    world.reconciler.submit([4, 7])
    assert (world.journal, world.reconciler.state, world.performed) == ([4, 7], 11, ["lamp-0"])


def test_an_effect_in_flight_is_not_performed_again(world):
    world.reconciler.submit([11])
    world.reconciler.submit([1])
    world.reconciler.reconcile()
    assert world.performed == ["lamp-0"]


def test_an_effect_that_is_no_longer_outstanding_is_forgotten_and_due_when_it_comes_back(world):
    for event in (11, -11, 11):
        world.reconciler.submit([event])
    assert world.performed == ["lamp-0", "lamp-0"]


def test_a_forgotten_effect_is_due_again(world):
    world.reconciler.submit([25])
    world.reconciler.forget("lamp-1")
    world.reconciler.reconcile()
    assert world.performed == ["lamp-0", "lamp-1", "lamp-1"]


def test_after_forget_all_everything_outstanding_is_due_again(world):
    world.reconciler.submit([25])
    world.reconciler.forget_all()
    world.reconciler.reconcile()
    assert world.performed == ["lamp-0", "lamp-1"] * 2


def test_events_that_could_not_be_journalled_have_not_happened(world):
    world.broken = True
    with pytest.raises(BrokenError):
        world.reconciler.submit([11])
    assert world.reconciler.state == 0


def test_an_effect_that_raises_stays_due(world):
    world.reconciler.fold([11])
    world.broken = True
    with pytest.raises(BrokenError):
        world.reconciler.reconcile()
    world.broken = False
    world.reconciler.reconcile()
    assert world.performed == ["lamp-0"]


def test_a_replay_folds_without_acting(world):
    world.reconciler.fold([11, 22])
    assert (world.reconciler.state, world.performed, world.journal) == (33, [], [])


def test_a_state_folded_elsewhere_is_adopted_and_acted_on(world):
    world.reconciler.adopt(11)
    assert (world.reconciler.state, world.performed, world.journal) == (11, ["lamp-0"], [])


def test_a_state_is_looked_at_once_however_often_the_world_is(world):
    world.reconciler.submit([11])
    for _ in range(3):
        world.reconciler.forget("lamp-0")
        world.reconciler.reconcile()
    assert (world.looks, world.performed) == (1, ["lamp-0"] * 4)
    world.reconciler.submit([10])
    assert (world.looks, world.performed[-1]) == (2, "lamp-1")
