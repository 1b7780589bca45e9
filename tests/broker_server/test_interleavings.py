"""Whatever the network and the power supply do, a round comes to the same consensus."""

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_server.accepted import Accepted
from broker_server.core.round import Phase
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import remake
from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.messages import Kind
from fd_protocol.parts import split
from fd_runtime.links.link import Arrived
from tests.broker_server.builders import FED
from tests.broker_server.world import TOPICS, World, fleet

NAMES = "abc"


def messages(world, devices):
    """Everything that three devices send in a round, in small parts: (topic, payload)."""
    return [
        (TOPICS.upload(device.name), codec.encode(part))
        for k, device in enumerate(devices)
        for kind, payload in ((Kind.COMPETENCE, device.map([k] * 20)), (Kind.CONTRIBUTION, device.contribution()[0]))
        for part in split(payload, world.offer.round, kind, part_bytes=30)
    ]


@cache
def undisturbed():
    world = World()
    for topic, payload in messages(world, fleet(world, NAMES)):
        world.arrive(topic, payload)
    world.settle()
    return [block.body for block in world.consensus()[0]]


@pytest.mark.parametrize("seed", range(12))
def test_any_order_doubling_and_crashes_give_the_same_consensus(tmp_path, seed):
    dice = random.Random(seed)
    world = World(tmp_path / "s.db")
    devices = fleet(world, NAMES)
    waiting = messages(world, devices)
    maps, labels = [m for m in waiting if b"competence" in m[1]], [m for m in waiting if b"contribution" in m[1]]
    for batch in (maps, labels):  # a map that comes after its round has closed counts from the next one
        stream = batch + dice.sample(batch, len(batch) // 2)
        dice.shuffle(stream)
        for topic, payload in stream:
            world.arrive(topic, payload)
            if dice.random() < 0.3:
                world.settle()
            if dice.random() < 0.1:  # what was not taken in is lost with the process; devices send it again
                world.restart()
                for again in batch:
                    world.arrive(*again)
        world.settle()
    assert world.state.round.phase is Phase.CLOSED
    assert world.state.round.heard == 3
    assert [block.body for block in world.consensus()[0]] == undisturbed()
    the_records_tell_it_once(Chronicle(world.store, FED))


def the_records_tell_it_once(chronicle):
    (record,) = chronicle.rounds()
    heard = chronicle.hearings(record.epoch, 1)
    kinds = [kind.value for kind in (Kind.COMPETENCE, Kind.CONTRIBUTION)]
    assert [(one.device, one.kind, one.status) for one in heard] == [(n, k, "stored") for n in NAMES for k in kinds]
    assert [one.rounds for one in chronicle.devices()] == [1, 1, 1]
    assert (
        record.up_bytes == sum(one.up_bytes for one in chronicle.devices()) >= sum(one.payload_bytes for one in heard)
    )
    assert remake(chronicle, record).sha256 == record.consensus_sha256


@pytest.fixture(scope="module")
def offered():
    world = World()
    devices = fleet(world, NAMES)
    return world, messages(world, devices)


@settings(max_examples=300)
@given(
    data=st.data(),
    leaf=st.sampled_from(["state", "up/0", "report"]),
)
def test_any_bytes_are_taken_or_refused_and_leave_the_round_alone(offered, data, leaf):
    world, sent = offered
    _, genuine = sent[data.draw(st.integers(0, len(sent) - 1))]
    damaged = bytearray(genuine)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    payload = data.draw(st.sampled_from([bytes(damaged), genuine[: len(genuine) // 2], data.draw(st.binary())]))
    arrived = Arrived(TOPICS.device("stranger", leaf), payload, retained=False, token=0)
    heard = world.state.round.heard
    try:
        taken = world.server._ingest.take(arrived, world.state, Accepted(world.store, FED), world.now_ms)
    except DecodeError:
        return
    assert world.state.round.heard == heard
    assert taken.receipt is None or taken.receipt.status is not None
