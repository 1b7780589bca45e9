"""What is seen of real programs is told by round, whatever the consensuses were."""

from fleet_sim.real.observer import Observer, Reading
from fleet_sim.scenario import Scenario

SAME, OTHER = b"same", b"other"


def test_two_rounds_that_came_to_the_same_consensus_are_two_rounds():
    reading, last = Reading(0.5, None), Reading(0.7, None)
    observer = Observer(Scenario(rounds=3), None, None, student={3: 0.6})
    observer.rounds |= {1: SAME, 2: SAME, 3: OTHER}
    observer.clients["device-0"] = {SAME: reading}
    assert observer.by_round("device-0") == {1: reading, 2: reading}
    observer.clients["device-0"][OTHER] = last
    assert observer.by_round("device-0") == {1: reading, 2: reading, 3: last}
