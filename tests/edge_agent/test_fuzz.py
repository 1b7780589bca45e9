"""Bytes that a broken or hostile peer might send, by the thousand, to the real decoder and the real agent."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from edge_agent.round.participant import Phase
from fd_protocol import cbor, codec
from fd_protocol.messages import Kind, Receipt, ServerState, Status
from tests.edge_agent.builders import offer, round_id
from tests.edge_agent.wire import TOPICS, Device, consensus_block

COUNT = int(os.environ.get("FEDISTILL_FUZZ", "10000"))
HEADS = bytes.fromhex("0017181b203b405b607b809ba0bbc0f6fbff")
"""First bytes of every kind of CBOR item, the longest and the forbidden ones too."""


def seeds():
    """(topic, bytes) of one valid message of each kind."""
    digest = bytes(range(32))
    yield TOPICS.round, codec.encode(offer(1, competence=True, devices=("dev-1", "dev-2")))
    yield TOPICS.consensus(0), codec.encode(consensus_block(1))
    yield TOPICS.consensus(1), codec.encode(replace(consensus_block(1), block=1, blocks=3))
    yield TOPICS.receipt("dev-1"), codec.encode(Receipt(round_id(1), Kind.CONTRIBUTION, digest, Status.STORED))
    missing = Receipt(round_id(1), Kind.COMPETENCE, digest, Status.MISSING, missing=(0, 5))
    yield TOPICS.receipt("dev-1"), codec.encode(missing)
    yield TOPICS.server("agg"), codec.encode(ServerState(online=True, epoch=7))
    yield TOPICS.device("dev-1", "cmd/config"), codec.encode(ServerState(online=True, epoch=7))


EDGES = (0, 1, -1, 23, 24, 255, 65_536, 2**31, 2**32, 2**53, 2**63 - 1, 2**64 - 1, -(2**63), 0.0, -1.5, 1e308)
EDGES += (True, False, None, "", "a", "x" * 600, "\x00", "u8-sqrt", b"", b"\x00" * 32, [], {}, [0] * 300, [[[[[]]]]])


def mutated(data, rng):
    """Return bytes a few changes away from valid ones: of the message's form, or of its fields."""
    return _misspelled(data, rng) if rng.random() < 0.5 else cbor.encode(_misfilled(cbor.decode(data), rng))


def _misfilled(item, rng):
    """Return the item with one thing in it replaced, dropped, or added."""
    if isinstance(item, dict | list) and item and rng.random() < 0.9:
        keys = list(item) if isinstance(item, dict) else range(len(item))
        key = rng.choice(keys)
        changed = item.copy()
        match rng.randrange(8):
            case 0:
                del changed[key]
            case 1 if isinstance(item, dict):
                changed[rng.randrange(40)] = rng.choice(EDGES)
            case _:
                changed[key] = _misfilled(item[key], rng)
        return changed
    if isinstance(item, int) and rng.random() < 0.5:
        return item + rng.choice((-1, 1))
    if isinstance(item, bytes) and item and rng.random() < 0.5:
        return item[:-1] if rng.random() < 0.3 else item[:-1] + rng.randbytes(1)
    return rng.choice(EDGES)


def _misspelled(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                data[at : at + 1] = bytes((rng.choice(HEADS),))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randint(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            case 5:
                data += data[at:]
            case 6:
                data[at : at + 1] = bytes((rng.choice(HEADS),)) + rng.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" * 8))
    return bytes(data[:70_000])


@pytest.mark.parametrize("seed", range(int(os.environ.get("FEDISTILL_FUZZ_SEEDS", "1"))))
def test_ten_thousand_broken_messages_end_no_device_and_leave_no_trace_that_harms(seed):
    rng, known, device = random.Random(seed), list(seeds()), Device()
    device.connect()
    believed = 0
    for number in range(COUNT):
        topic, data = rng.choice(known)
        before = device.state
        arrived = device.hear(topic, mutated(data, rng))
        assert device.wire.acked[-1] == arrived, number
        believed += device.state is not before
        if rng.random() < 0.001:
            device.restart()
            device.connect()
        if rng.random() < 0.05:
            device.ms += rng.choice((1, 1000, 10_000_000))
            device.confirm()
    print(f"{COUNT} messages, {believed} of them believed")  # noqa: T201
    assert 0 < believed < COUNT / 2  # some change what nothing depends on, as a deadline; most are noise
    device.confirm()
    device.hear_offer(2, epoch=99)
    device.hear_receipt(device.parts()[-1])
    device.hear_consensus(2, epoch=99)
    device.confirm()
    assert device.state.phase is Phase.IDLE
    assert device.reports()[-1].accepted
