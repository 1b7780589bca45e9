"""A round asks for what is uncertain or old; what is published is the consensus on everything."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.aggregator import Aggregator
from broker_server.core.events import Portion
from broker_server.core.portions import choose, grid, renewed, standing, together
from broker_server.core.round import Phase
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import remake
from broker_server.settings import MethodSettings, RoundSettings
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, ConsensusBlock, Slice
from tests.broker_server.builders import PUBLIC_SET, round_id
from tests.broker_server.world import PROBES, TOPICS, World, fleet

SLICES = grid(PROBES.whole, 5)


def portion(index, number, entropy=1.0, temperature=2.0):
    return Portion(SLICES[index], temperature, number, entropy, sha256(b"%d" % number))


def chosen(held, number, stay=1, lease=50):
    return SLICES.index(choose(SLICES, held, number, stay=stay, lease=lease))


def test_the_set_is_asked_for_in_whole_slices():
    assert [part.start for part in SLICES] == [0, 5, 10, 15]
    assert [part.start for part in grid(PROBES.whole, 8)] == [0, 8]


def test_what_nobody_was_asked_for_comes_first_in_the_order_of_the_set():
    assert chosen((), 1) == 0
    assert chosen((portion(0, 1), portion(1, 2, entropy=9.0)), 9) == 2


def test_then_uncertain_portions_are_asked_for_more_often_than_certain_ones():
    held = tuple(portion(k, 6 + k, entropy) for k, entropy in enumerate((0.3, 0.5, 2.0, 0.1)))
    assert chosen(held, 10) == 2


def test_a_portion_that_has_reached_its_lease_comes_before_all_others():
    held = (portion(0, 19, entropy=9.0), portion(1, 18), portion(2, 10, entropy=0.0), portion(3, 11, entropy=0.0))
    assert chosen(held, 20, lease=11) == 0
    assert chosen(held, 20, lease=10) == 2


def test_where_everything_is_certain_the_oldest_is_asked_for():
    assert chosen(tuple(portion(k, 9 - k, entropy=0.0) for k in range(4)), 10) == 3


def test_a_slice_stays_for_as_many_rounds_as_the_settings_say():
    held = tuple(portion(k, k + 1) for k in range(4))
    assert [chosen(held, number, stay=3) for number in (8, 9)] == [3, 3]
    assert chosen(held, 10, stay=3) == 0


@given(
    st.lists(st.floats(0, 3), min_size=100, max_size=100),
    st.integers(4, 12),
)
def test_no_portion_ever_grows_older_than_its_lease_and_a_round_of_the_set(entropies, lease):
    held = ()
    for number, entropy in enumerate(entropies, 1):
        held = renewed(held, portion(chosen(held, number, lease=lease), number, entropy))
        assert [each.slice for each in held] == list(SLICES[: len(held)])
        assert all(number - each.round < lease + len(SLICES) for each in held)


def test_portions_hold_for_the_same_slices_and_temperature_and_from_the_first_on():
    held = tuple(portion(k, k + 1) for k in range(4))
    assert standing(held, SLICES, 2.0) == held
    assert standing(held, SLICES, 3.0) == ()
    assert standing(held, grid(PROBES.whole, 10), 2.0) == ()
    assert standing((held[0], replace(held[1], temperature=3.0), *held[2:]), SLICES, 2.0) == held[:1]
    assert standing(held[1:], SLICES, 2.0) == ()


def block(start, number, body):
    part = Slice(PUBLIC_SET, start, 5, 3)
    return ConsensusBlock(round_id(number), sha256(body), 0, 1, part, 2.0, Codec.U8_SQRT, body)


def test_blocks_that_stay_keep_their_bodies_and_take_the_name_of_the_new_consensus():
    whole = together([block(5, 9, b"new")], [block(10, 3, b"c"), block(0, 4, b"a")])
    assert [each.body for each in whole] == [b"a", b"new", b"c"]
    assert {each.consensus_sha256 for each in whole} == {sha256(b"anewc")}
    assert [(each.round.number, each.block, each.blocks) for each in whole] == [(9, 0, 3), (9, 1, 3), (9, 2, 3)]


def test_more_blocks_than_the_wire_can_name_are_refused():
    with pytest.raises(InvalidValueError, match="129 of at most 128"):
        together([block(0, 1, b"x")] * 129, [])


# In the server.

NEED = RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=10, probes=5, choose="need")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "s.db", rounds=NEED, method=MethodSettings("mean-probabilities"))


def play(world, rounds, first=0):
    """Play rounds; return what was asked for in each."""
    asked = []
    for seed in range(first, first + rounds):
        devices = fleet(world)
        asked.append(world.offer.slice.start)
        for device in devices:
            device.contribute(seed=seed)
        world.wait(10)
    return asked


def test_the_published_consensus_grows_to_the_whole_set_and_stays_whole(world):
    assert play(world, 4) == [0, 5, 10, 15]
    before, rows = world.consensus()
    assert [each.slice.start for each in before] == [0, 5, 10, 15]
    (asked,) = play(world, 1, first=9)
    after, renewed_rows = world.consensus()
    assert {each.round.number for each in after} == {5}
    assert after[0].consensus_sha256 == sha256(b"".join(each.body for each in after))
    same = [old.body == new.body for old, new in zip(before, after, strict=True)]
    assert same == [each.slice.start != asked for each in before]
    was_asked = range(asked, asked + 5)
    np.testing.assert_array_equal(np.delete(rows, was_asked, 0), np.delete(renewed_rows, was_asked, 0))


def test_the_operator_is_told_what_was_saved(world):
    play(world, 4)
    metrics = world.state.consensus.metrics
    assert (metrics["kept_probes"], metrics["kept_rounds"]) == (15, 3)
    sent = sum(row.payload_bytes for row in Chronicle(world.store, "demo").hearings(world.state.epoch, 4))
    assert metrics["saved_up_bytes"] == 3 * sent
    assert metrics["repeated_down_bytes"] == sum(len(each.body) for each in world.consensus()[0][:3])


def test_a_crash_while_aggregating_comes_to_the_same_whole(world, tmp_path, monkeypatch):
    play(world, 4)
    undisturbed = World(tmp_path / "again.db", rounds=NEED, method=MethodSettings("mean-probabilities"))
    play(undisturbed, 5)
    with monkeypatch.context() as crash:
        crash.setattr(Aggregator, "_start", lambda *_: None)
        for device in fleet(world):
            device.contribute(seed=4)
        assert world.state.round.phase is Phase.AGGREGATING
    world.restart()
    assert [each.body for each in world.consensus()[0]] == [each.body for each in undisturbed.consensus()[0]]


def test_what_a_round_made_of_it_can_be_made_again(world):
    play(world, 5)
    chronicle = Chronicle(world.store, "demo")
    records = chronicle.rounds()
    assert [remake(chronicle, record).sha256 == record.made_sha256 for record in records if record.ended_ms] == [
        True
    ] * 5
    assert records[1].made_sha256 != records[1].consensus_sha256


def test_an_absent_device_is_heard_on_every_slice_that_it_once_spoke_of(world):
    play(world, 4)
    a, b, c = fleet(world)
    c.die()
    world.device("d")
    for seed in range(4):
        for device in (a, b):
            device.contribute(seed=seed)
        world.wait(60)
        assert world.state.consensus.metrics["absent_voices"] == 1
        world.wait(10)
    assert len(world.store.payloads("demo", "contribution", "a")) == 4, "one for each slice"


def test_another_temperature_makes_the_whole_anew(world):
    play(world, 3)
    world.settings = replace(world.settings, method=MethodSettings("mean-probabilities", temperature=3.0))
    world.wait(60)
    world.restart()
    world.wait(10)
    assert play(world, 1) == [0]
    assert [each.temperature for each in world_blocks(world)] == [3.0]


def world_blocks(world):
    """The blocks that the newest consensus names; what a longer one left behind is none of it."""
    first = codec.decode(world.link.retained[TOPICS.consensus(0)], ConsensusBlock)
    topics = [TOPICS.consensus(index) for index in range(first.blocks)]
    return [codec.decode(world.link.retained[topic], ConsensusBlock) for topic in topics]


def test_a_round_that_was_aborted_is_asked_for_again(world):
    play(world, 2)
    assert world.offer.slice.start == 10
    world.wait(60)
    world.wait(10)
    assert (world.offer.round.number, world.offer.slice.start) == (4, 10)


@pytest.mark.parametrize("wrong", [{"choose": "need"}, {"choose": "need", "probes": 5, "lease_rounds": 0}])
def test_needs_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        RoundSettings(**wrong)


def test_slices_that_would_make_too_many_blocks_are_refused():
    settings = World(rounds=replace(NEED, probes=2)).settings
    settings.check_against(replace(PROBES, count=256))
    with pytest.raises(InvalidValueError, match="129 of at most 128"):
        settings.check_against(replace(PROBES, count=258))
