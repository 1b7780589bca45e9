"""Attacks by a certified device, and by a hijacked server, with the bytes of messages: on the real victims.

`run` gets `Victims`: the server and the device in rounds. What a hijacked server says is said by the `PUPPETEER`, to
whom the ACL of these tests gives the server's rights.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from broker_server import ingest
from broker_server.core.rate import RateTerms
from fd_protocol import cbor, codec
from fd_protocol.errors import DecodeError
from fd_protocol.messages import DeviceState, Kind, Receipt, RoundOffer, Status
from fd_protocol.parts import split
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from tests.attacks.fuzz import FUZZ, throw_packets, throw_payloads
from tests.attacks.ground import MALLORY, PUPPETEER, TOPICS, VICTIM, WITNESS, Seen, Weakening, said
from tests.attacks.raw import SUBACK, RawClient, publish, subscribe
from tests.attacks.row import Attack
from tests.attacks.victims import Victims
from tests.broker_server import world
from tests.support.hostile import answer_to
from tests.support.patience import wait_until

_PATIENCE_S = 60.0


@dataclass(slots=True)
class Insider:
    """A certified device that speaks the protocol, by hand."""

    client: RawClient
    name: str = MALLORY
    offers: list[RoundOffer] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    ids: int = 0

    @classmethod
    def enter(cls, victims: Victims, name: str = MALLORY) -> Insider:
        client = victims.ground.client(name)
        client.send(subscribe(TOPICS.round, TOPICS.receipt(name)))
        client.answer(SUBACK)
        return cls(client, name)

    def hear(self) -> None:
        for topic, payload in self.client.heard():
            if topic == TOPICS.round:
                self.offers.append(codec.decode(payload, RoundOffer))
            elif topic == TOPICS.receipt(self.name):
                self.receipts.append(codec.decode(payload, Receipt))

    def next_offer(self) -> RoundOffer:
        """Wait for an offer that is not known yet."""
        self.hear()
        self.offers.clear()
        wait_until(lambda: self.hear() or self.offers, _PATIENCE_S)
        return self.offers[-1]

    def open_offer(self, victims: Victims) -> RoundOffer:
        """Return the offer of the round that stays open, the victim's model standing still."""

        def is_open() -> bool:
            self.hear()
            state = victims.state
            known = state is not None and state.has_open_round and state.round is not None and state.round.heard == 0
            return known and bool(self.offers) and self.offers[-1].round == state.round.id

        def stays_open() -> bool:
            was_open = is_open()
            time.sleep(0.3)  # what was under way to the server has come by then
            return was_open and is_open()

        wait_until(stays_open, _PATIENCE_S)
        return self.offers[-1]

    def send(self, data: bytes, leaf: str = "up/0", name: str = "") -> str:
        self.ids = self.ids % 60_000 + 1
        topic = TOPICS.device(name or self.name, leaf)
        return said(self.client, publish(topic, data, packet_id=self.ids))

    def pour(self, data: list[bytes], leaf: str) -> None:
        """Publish all of it without waiting for a word."""
        for start in range(0, len(data), 150):  # the broker lets 200 be under way
            batch = data[start : start + 150]
            self.client.send(
                b"".join(publish(TOPICS.device(self.name, leaf), one, packet_id=1 + n) for n, one in enumerate(batch))
            )
            self.client.heard()

    def ask(self, data: bytes) -> Receipt:
        """Send a part and return its receipt."""
        self.hear()
        self.receipts.clear()
        assert self.send(data) == "PUBACK 0x0"
        wait_until(lambda: self.hear() or self.receipts, _PATIENCE_S)
        return self.receipts[-1]

    def answer(self, offer: RoundOffer, **changes: object) -> bytes:
        """Return a contribution to a round, in one part."""
        (part,) = split(codec.encode(answer_to(offer, **changes)), offer.round, Kind.CONTRIBUTION)
        return codec.encode(part)


def _words(receipt: Receipt) -> str:
    return f"{receipt.status.value}: {receipt.reason}" if receipt.reason else receipt.status.value


# Replays.


def twice(victims: Victims) -> Seen:
    """Contribute twice to a round: the same bytes, then others."""
    insider = Insider.enter(victims)
    with victims.agent.held_worker():  # the round stays open
        offer = insider.open_offer(victims)
        first = insider.ask(insider.answer(offer))
        again = insider.ask(insider.answer(offer))
        second = (Insider.enter(victims, WITNESS) if victims.is_weak else insider).ask(_other(insider, offer))
    assert first.status is Status.STORED
    return Seen(f"{_words(again)}; {_words(second)}", got_through=second.status is Status.STORED)


def _other(insider: Insider, offer: RoundOffer) -> bytes:
    rows = np.random.default_rng(1).dirichlet(np.ones(offer.slice.classes), offer.slice.count).astype(np.float32)
    return insider.answer(offer, body=encode_body(quantise(SoftLabels(rows, offer.temperature), offer.codec)))


def old_round(victims: Victims) -> Seen:
    """Contribute; two rounds later send it again, and another to that round, and to one of another epoch."""
    insider = Insider.enter(victims)
    with victims.agent.held_worker():
        offer = insider.open_offer(victims)
        data = insider.answer(offer)
        assert insider.ask(data).status is Status.STORED
    while insider.next_offer().round.number < offer.round.number + 2:
        pass
    with victims.agent.held_worker():
        current = insider.open_offer(victims)
        epoch = replace(offer, round=replace(offer.round, epoch=offer.round.epoch ^ 1))
        late = _other(insider, current if victims.is_weak else offer)
        receipts = [insider.ask(one) for one in (data, late, insider.answer(epoch))]
    return Seen("; ".join(map(_words, receipts)), got_through=any(one.status is Status.STORED for one in receipts))


def others_contribution(victims: Victims) -> Seen:
    """Say again, on the victim's topic, what the victim has said."""
    stage = victims.ground
    stage.listen()
    topic, said_by_victim = TOPICS.upload(VICTIM), list[bytes]()

    def is_heard() -> bool:
        said_by_victim.extend(payload for where, payload in stage.heard() if where == topic)
        return bool(said_by_victim)

    wait_until(is_heard, _PATIENCE_S)
    payload = said_by_victim[-1]
    stage.listen()
    answer = stage.publish(topic, payload, name=PUPPETEER if victims.is_weak else MALLORY)
    again = sum(where == topic and what == payload for where, what in stage.heard())
    return Seen(answer, got_through=again > 0)


# Bombs.

BOMB_BYTES = 50_000_000


def zip_bomb(victims: Victims) -> Seen:
    """A contribution of 50 kB that inflates to 50 MB."""
    body = zlib.compress(bytes(BOMB_BYTES), 9)
    if victims.is_weak:
        return Seen("inflated", got_through=len(zlib.decompress(body)) == BOMB_BYTES)
    insider, before = Insider.enter(victims), victims.peak_mb()
    with victims.agent.held_worker():
        receipt = insider.ask(insider.answer(insider.open_offer(victims), body=body))
    return Seen(_words(receipt), got_through=victims.peak_mb() - before > 20)


CBOR_BOMBS = (
    b"\x81" * 20_000 + b"\x00",
    b"\xa1\x00" * 20_000,
    b"\x9b" + b"\xff" * 8,
    b"\x9b\x00\x00\x01" + bytes(5),
    b"\xbb\x7f" + b"\xff" * 7,
    b"\x5b\x00\x00\x01" + bytes(5),
    b"\x7b" + b"\xff" * 8,
    b"\x9a\x00\x01\x00\x01" + bytes(60_000),
    b"\xc0" * 30_000 + b"\x00",
    b"\x9f" * 30_000,
    b"\x5f" * 30_000,
    b"\xd8\x23\x78\x20" + b"(a+)+" * 6 + b"$!",
)
"""Deep, wide, endless, tagged: what a general decoder allocates for, recurses into, or makes a regex of."""


def cbor_bombs(victims: Victims) -> Seen:
    if victims.is_weak:
        return _without_depth()
    insider, before, mb = Insider.enter(victims), victims.quarantined(), victims.peak_mb()
    for bomb in CBOR_BOMBS:
        for leaf in ("up/0", "report", "state", "cmd/config"):
            insider.send(bomb, leaf)
    wanted = 4 * len(CBOR_BOMBS)
    wait_until(lambda: victims.quarantined() >= before + wanted, _PATIENCE_S)
    grown = victims.peak_mb() - mb
    return Seen(f"no answer; {victims.quarantined() - before} set aside", got_through=grown > 20)


def _without_depth() -> Seen:
    known, cbor.MAX_DEPTH = cbor.MAX_DEPTH, 1 << 30
    try:
        cbor.decode(CBOR_BOMBS[0])
    except RecursionError:
        return Seen("a decoder that overruns its stack", got_through=True)
    except DecodeError:
        return Seen("refused")
    finally:
        cbor.MAX_DEPTH = known
    return Seen("taken")


# Floods.


def message_flood(victims: Victims) -> Seen:
    """A thousand messages at once."""
    if victims.is_weak:
        open_to_all = world.World()
        for _ in range(1_000):
            open_to_all.arrive(world.TOPICS.report("a"), b"noise")
        open_to_all.settle()
        taken = open_to_all.server.counters["set_aside.malformed"]
    else:
        insider, before = Insider.enter(victims), victims.quarantined()
        insider.pour([b"noise"] * 1_000, "report")
        victims.play()
        taken = victims.quarantined() - before
    return Seen("PUBACK 0x0", got_through=taken > 2 * RateTerms().messages_per_minute)


def birth_flood(victims: Victims) -> Seen:
    """Be born 400 times, as a device that every round waits for."""
    if victims.is_weak:
        known, ingest.PRESENCES = ingest.PRESENCES, RateTerms(0, 0)
        try:
            stage = world.World()
            for _ in range(400):
                stage.device(MALLORY)
            return Seen("is waited for", got_through=MALLORY in stage.state.online)
        finally:
            ingest.PRESENCES = known
    insider = Insider.enter(victims)
    offer = insider.next_offer()
    birth = codec.encode(DeviceState(1, online=True, task=offer.task, capabilities=(offer.codec.value,)))
    insider.pour([birth] * 400, "state")
    victims.play()
    state = victims.state
    assert state is not None
    return Seen("PUBACK 0x0", got_through=MALLORY in state.online)


def shouting(victims: Victims) -> Seen:
    """Say 10,000 small messages with QoS 0, which nobody holds back."""
    topic = TOPICS.device(MALLORY, "report")
    before, mb = victims.quarantined(), victims.peak_mb()
    with victims.ground.client() as client:
        client.send(publish(topic, b"noise", qos=1 if victims.is_weak else 0) * (150 if victims.is_weak else 10_000))
        client.heard()
    victims.play()
    is_heard = victims.quarantined() > before
    return Seen("nothing", got_through=is_heard or victims.peak_mb() - mb > 20)


# Noise.


def fuzz_packets(victims: Victims) -> Seen:
    if victims.is_weak:
        victims.agent.kill()
    else:
        victims.counted["packets"] = throw_packets(victims.ground, FUZZ)
    return _after(victims)


def fuzz_payloads(victims: Victims) -> Seen:
    if victims.is_weak:
        victims.agent.kill()
    else:
        victims.counted["payloads"] = throw_payloads(victims.ground, FUZZ, victims.state.epoch)
    return _after(victims)


def _after(victims: Victims) -> Seen:
    harm = victims.harm()
    return Seen(", ".join(harm) or "hung up, or nothing", got_through=bool(harm))


KILLED = Weakening("a device that is killed meanwhile")

ROWS = (
    Attack(
        "contribution twice",
        "send it again, and another to the same round",
        "duplicate; refused: second_payload",
        twice,
        Weakening("a second certificate"),
    ),
    Attack(
        "old round replayed",
        "send a contribution again two rounds later, another to that round, one to another epoch",
        "duplicate; refused: round_closed; refused: foreign_epoch",
        old_round,
        Weakening("the open round's number"),
    ),
    Attack(
        "another's contribution replayed",
        "say again what the victim said, on its topic",
        "PUBACK 0x87",
        others_contribution,
        Weakening("the server's certificate"),
    ),
    Attack(
        "zip bomb",
        "contribute 50 kB that inflate to 50 MB",
        "refused: wrong_length",
        zip_bomb,
        Weakening("`zlib.decompress`"),
    ),
    Attack(
        "CBOR bombs",
        "12 of them on each topic: 20,000 levels, 2^64 items, tags, lengths without end",
        "no answer; 48 set aside",
        cbor_bombs,
        Weakening("no `MAX_DEPTH`"),
    ),
    Attack(
        "message flood", "1,000 reports at once", "PUBACK 0x0", message_flood, Weakening("`[admission]` without limits")
    ),
    Attack("birth flood", "be born 400 times", "PUBACK 0x0", birth_flood, Weakening("births without limit")),
    Attack("flood of QoS 0", "10,000 messages that nobody holds back", "nothing", shouting, Weakening("QoS 1")),
    Attack(
        "fuzzed packets",
        "10,000 broken packets, certified",
        "hung up, or nothing",
        fuzz_packets,
        KILLED,
    ),
    Attack(
        "fuzzed payloads",
        "10,000 broken messages on every topic that server and device read, with the server's rights",
        "hung up, or nothing",
        fuzz_payloads,
        KILLED,
    ),
)
