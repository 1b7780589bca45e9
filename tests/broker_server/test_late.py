"""A contribution that comes after its round is not lost: from the next round on it is its device's last word."""

import numpy as np
import pytest

from broker_server.aggregator import Aggregator
from broker_server.core.round import Phase
from broker_server.settings import MethodSettings, RoundSettings
from broker_server.voices import Absence
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import Status
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db", method=MethodSettings("mean-probabilities"))


def close_without(world, absent):
    """Let a round end at its deadline without one device; return its payload and the round."""
    devices = fleet(world)
    current = world.offer.round
    late = next(device for device in devices if device.name == absent)
    payload, codes = late.contribution()
    for device in devices:
        if device is not late:
            device.contribute()
    world.wait(60)
    return late, payload, codes, current


def answer(device, payload, round_id):
    (receipt,) = device.send(payload, round_id=round_id)
    return receipt.status, receipt.reason


STORED, CLOSED = (Status.STORED, ""), (Status.REFUSED, "round_closed")


def test_a_late_contribution_is_stored_and_leaves_the_round_as_it_ended(world):
    c, payload, _, current = close_without(world, "c")
    before, consensus = world.state, world.consensus()[0]
    assert answer(c, payload, current) == STORED
    assert world.state is before
    assert world.consensus()[0] == consensus
    assert world.server.counters["contribution.late"] == 1


def test_from_the_next_round_on_it_speaks_with_the_weight_of_its_age(world):
    c, payload, codes, current = close_without(world, "c")
    answer(c, payload, current)
    c.die()
    world.device("d")
    world.wait(10)
    others = [device.contribute(seed=1)[1] for device in (world.device("a"), world.device("b"))]
    world.wait(60)
    weights = [1.0, 1.0, 0.8]
    said = [each.probabilities() for each in (*others, codes)]
    expected = sum(w * p for w, p in zip(weights, said, strict=True)) / sum(weights)
    np.testing.assert_allclose(world.consensus()[1], expected, atol=0.01)
    assert world.state.consensus.metrics["absent_voices"] == 1


def test_it_is_still_heard_while_the_next_round_is_on_offer(world):
    c, payload, _, current = close_without(world, "c")
    world.wait(10)
    assert world.offer.round.number == 2
    assert answer(c, payload, current) == STORED
    assert world.state.round.heard == 0, "it does not count in that round"


def test_after_that_it_is_too_late(world):
    c, payload, _, current = close_without(world, "c")
    world.wait(10)
    world.wait(60)
    world.wait(10)
    assert world.offer.round.number == 3
    assert answer(c, payload, current) == CLOSED


def test_a_late_contribution_counts_once_and_the_first_bytes_stand(world):
    c, payload, _, current = close_without(world, "c")
    assert answer(c, payload, current) == STORED
    assert answer(c, payload, current) == (Status.DUPLICATE, "")
    assert answer(c, c.contribution(seed=5, offer=world.state.round.offer)[0], current)[1] == "second_payload"
    a = next(device for device in [world.device("a")])
    assert answer(a, a.contribution(seed=5, offer=world.state.round.offer)[0], current)[1] == "second_payload"


def test_a_late_contribution_must_be_what_its_own_round_asked_for(tmp_path):
    world = World(tmp_path / "s.db", rounds=RoundSettings(minimum_online=3, duration_s=60, pause_s=10, probes=10))
    c, payload, _, current = close_without(world, "c")
    world.wait(10)
    assert world.offer.slice.start == 10
    assert answer(c, c.contribution()[0], current)[1] == "wrong_slice"
    assert answer(c, payload, current) == STORED


def test_where_absent_devices_do_not_count_late_ones_are_refused(tmp_path):
    world = World(tmp_path / "s.db", method=MethodSettings(absence=Absence(decay=0.0)))
    c, payload, _, current = close_without(world, "c")
    assert answer(c, payload, current) == CLOSED


def test_an_epoch_that_has_ended_is_no_matter_of_lateness(world):
    c, payload, _, current = close_without(world, "c")
    assert answer(c, payload, RoundId(FED, current.epoch ^ 2, current.number))[1] == "foreign_epoch"


def test_a_late_contribution_is_the_base_of_the_next_difference(world):
    c, payload, codes, current = close_without(world, "c")
    answer(c, payload, current)
    world.wait(10)
    assert answer(c, c.contribution(seed=1, base=(payload, codes))[0], world.offer.round) == STORED


def test_words_of_the_round_before_do_not_change_what_is_being_aggregated(world, monkeypatch):
    """An aggregation that is repeated after a crash must come to the same bits."""
    c, payload, _, first = close_without(world, "c")
    world.wait(10)
    second = world.offer.round
    d = world.device("d")
    own, _ = d.contribution()
    for name in "ab":
        world.device(name).contribute(seed=1)
    with monkeypatch.context() as crash:
        crash.setattr(Aggregator, "_start", lambda *_: None)
        world.wait(60)
        assert world.state.round.phase is Phase.AGGREGATING
        assert answer(c, payload, first) == CLOSED
        assert answer(d, own, second) == STORED, "it does not count in its own round"
    world.restart()
    assert (world.state.round.phase, world.state.consensus.metrics["voices"]) == (Phase.CLOSED, 2)
    assert sha256(own) in {row.sha256 for row in world.store.payloads(FED, "contribution", "d")}
