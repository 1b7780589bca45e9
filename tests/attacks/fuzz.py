"""Broken packets and broken messages by the thousand, a few changes away from valid ones, each series from one seed.

FEDISTILL_FUZZ says how many; without it there are a few hundred, for a suite that is run all day.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace

from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import (
    Command,
    CommandState,
    DeviceState,
    Kind,
    ProbeNotice,
    PublicSetRef,
    Receipt,
    Release,
    RoundOffer,
    RoundReport,
    ServerState,
    Status,
)
from fd_protocol.parts import split
from tests.attacks.ground import MALLORY, PUPPETEER, TOPICS, VICTIM, Ground
from tests.attacks.raw import (
    HungUpError,
    RawClient,
    connect,
    packet,
    publish,
    subscribe,
    user_properties,
)
from tests.edge_agent.builders import offer
from tests.edge_agent.test_fuzz import mutated
from tests.edge_agent.wire import consensus_block
from tests.support.brokers import AGGREGATOR, FEDERATION

FUZZ = int(os.environ.get("FEDISTILL_FUZZ", "300"))
_BATCH = 100
_NAMES = 40


def _packets() -> list[bytes]:
    """Valid packets of every kind, and some that no client sends."""
    own, ids = TOPICS.report(MALLORY), b"\0\1"
    return [
        connect(MALLORY),
        connect(MALLORY, will=(TOPICS.state(MALLORY), b"gone"), props=user_properties(3)),
        publish(own, b"payload"),
        publish(own, b"payload", qos=2),
        publish(own, b"payload", qos=0, retain=True, props=b"\x02\0\0\0\1" + b"\x23\0\1" + user_properties(2)),
        subscribe("fd/#", own),
        packet(10, ids + b"\0" + own.encode(), 2),
        *(packet(kind, ids + b"\0\0", 2 if kind == 6 else 0) for kind in (4, 5, 6, 7)),
        packet(12, b""),
        packet(14, b"\0"),
        packet(15, b"\x18\0"),
        packet(2, b"\0\0\0"),
        packet(9, ids + b"\0\1"),
        packet(0, b""),
        packet(13, b""),
    ]


def _broken(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(broken) + 1)
        match rng.randrange(6):
            case 0:
                broken[at : at + 1] = rng.randbytes(1)
            case 1:
                del broken[at:]
            case 2:
                broken[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                broken += broken[at:]
            case 4:
                broken[at : at + 2] = rng.choice((b"\xff\xff", b"\0\0", b"\x7f", b"\xff\xff\xff\x7f"))
            case 5:
                broken[:1] = bytes((rng.randrange(256),))
    return bytes(broken[:70_000])


def throw_packets(stage: Ground, count: int, seed: int = 0) -> str:
    """Send `count` broken packets over as many connections as it takes; say what became of them."""
    rng, known = random.Random(seed), _packets()
    thrown = connections = 0
    while thrown < count:
        connections += 1
        assert connections < 2 * count + 100, f"nobody is let in any more, after {thrown} packets"
        first = None if rng.random() < 0.2 else connect(MALLORY)  # some come before any CONNECT
        try:
            with RawClient(stage.port, stage.files(MALLORY), first) as client:
                client.socket.settimeout(2.0)
                while thrown < count:
                    thrown += 1
                    client.send(_broken(rng.choice(known), rng))
                    if rng.random() < 0.3 and not client.is_alive(0.1):  # it may wait for the rest of a packet
                        break
        except (HungUpError, TimeoutError, OSError):
            continue
    return f"{thrown} packets over {connections} connections"


def _messages(epoch: int) -> Iterator[tuple[str, bytes]]:
    """(topic, bytes) of a valid message of every kind, on every topic that a server or a device reads."""
    digest, round_id = sha256(b"x"), RoundId(FEDERATION, epoch, 1_000_000)
    asked = offer(1_000_000, epoch, competence=True)
    yield TOPICS.round, codec.encode(asked)
    yield TOPICS.consensus(0), codec.encode(consensus_block(1))
    yield TOPICS.consensus(1), codec.encode(replace(consensus_block(1), block=1, blocks=3))
    yield TOPICS.release("mlp-s"), codec.encode(Release("mlp-s", digest, "1", package=digest, package_bytes=1000))
    notice = ProbeNotice(PublicSetRef(digest, 8, 1000))
    yield TOPICS.probes, codec.encode(notice)
    yield TOPICS.server(AGGREGATOR), codec.encode(ServerState(online=True, epoch=7))
    yield TOPICS.receipt(VICTIM), codec.encode(Receipt(round_id, Kind.CONTRIBUTION, digest, Status.STORED))
    missing = Receipt(round_id, Kind.COMPETENCE, digest, Status.MISSING, missing=(0, 5))
    yield TOPICS.receipt(VICTIM), codec.encode(missing)
    command = Command("a1", "diag", CommandState.INIT, 4_000_000_000, {})
    yield TOPICS.command(VICTIM, "diag"), codec.encode(command)
    for number in range(_NAMES):  # each has an allowance of its own
        name = f"fuzz-{number}"
        yield TOPICS.state(name), codec.encode(DeviceState(1, online=True, task=digest, capabilities=("u8-sqrt",)))
        yield TOPICS.report(name), codec.encode(RoundReport(round_id, digest, accepted=True, metrics={"loss": 0.5}))
        (part,) = split(b"payload" * 20, round_id, Kind.CONTRIBUTION)
        yield TOPICS.upload(name), codec.encode(part)
        (part,) = split(b"map" * 20, round_id, Kind.COMPETENCE)
        yield TOPICS.upload(name), codec.encode(part)
        done = Command("a1", "diag", CommandState.SUCCESSFUL, 4_000_000_000, {})
        yield TOPICS.command(name, "diag"), codec.encode(done)


def throw_payloads(stage: Ground, count: int, epoch: int, seed: int = 0) -> str:
    """Publish `count` broken messages with the server's rights, on every topic in turn; say how many.

    No whole offer of another epoch is among them: who may say that is the server, and devices go with it for good.
    """
    rng, known = random.Random(seed), list(_messages(epoch))
    taken = 0
    with stage.client(PUPPETEER) as client:
        for start in range(0, count, _BATCH):
            batch = []
            for number in range(min(_BATCH, count - start)):
                topic, data = rng.choice(known[:9]) if rng.random() < 0.5 else rng.choice(known)
                broken = mutated(data, rng)
                while topic == TOPICS.round and _is_another_epochs(broken, epoch):
                    broken = mutated(data, rng)
                batch.append(publish(topic, broken, packet_id=1 + number))
            client.send(b"".join(batch))
            client.heard()
            taken += len(batch)
    return f"{taken} payloads on {len({topic for topic, _ in known})} topics"


def _is_another_epochs(data: bytes, epoch: int) -> bool:
    try:
        return codec.decode(data, RoundOffer).round.epoch != epoch
    except DecodeError:
        return False
