"""A server and its devices in one process: the real aggregator and store, a link of two queues, hand-made devices."""

from queue import SimpleQueue

import numpy as np

from broker_server.aggregator import Aggregator
from broker_server.core.rate import RateTerms
from broker_server.orders import new_order, place_order
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.voice import WEIGHT_ONE, Voice
from broker_server.settings import MethodSettings, ProbeSet, RecordSettings, RoundSettings, Settings
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.identity import sha256
from fd_protocol.messages import (
    CompetenceMap,
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Receipt,
    RoundOffer,
    ServerState,
    Status,
)
from fd_protocol.parts import split
from fd_protocol.payload import decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkDown, LinkUp
from fd_runtime.storage.store import Store
from tests.broker_server.builders import FED, PUBLIC_SET, TASK

PROBES = ProbeSet(PUBLIC_SET, count=20, classes=3, task=TASK)
TOPICS = Topics(FED)


class FakeLink:
    """Keeps what is published, and in which order things happened."""

    def __init__(self):
        self.events, self.history, self.retained = SimpleQueue(), [], {}
        self.events.put(LinkUp(session_present=False, max_packet_bytes=1 << 16))

    def publish(self, topic, payload, *, retain=False, expiry_s=None):
        self.history.append(("publish", topic, payload))
        if retain:
            self.retained[topic] = payload
        return len(self.history)

    def ack(self, arrived):
        self.history.append(("ack", arrived.topic, arrived.payload))

    def close(self):
        self.history.append(("close", "", b""))

    def published(self, topic):
        return [payload for verb, where, payload in self.history if verb == "publish" and where == topic]


class Tray:
    """A worker whose work is done when the test says so."""

    def __init__(self):
        self.tasks = []

    def start(self, task):
        self.tasks.append(task)

    def work(self):
        for task in self.tasks:
            task()


class World:
    """One federation; `restart` is a crash of the server, as the disk sees it."""

    def __init__(
        self, path=None, *, rounds=None, method=None, aggregator=Aggregator, records=None, admission=None, **arguments
    ):
        self.rounds = rounds or RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=10)
        self.settings = Settings(
            FED,
            rounds=self.rounds,
            method=method or MethodSettings(),
            records=records or RecordSettings(),
            admission=admission or RateTerms(0, 0),
        )
        self.path, self.now_ms, self.drawn = path, 1_000_000, 0
        self.make, self.arguments = aggregator, arguments
        self.link = FakeLink()
        self.store = Store.open(path)
        self.start()

    def start(self):
        self.server = self.make(
            self.settings,
            self.store,
            self.link,
            lambda: self.now_ms,
            **{"probes": PROBES, "entropy": self.entropy, **self.arguments},
        )
        self.settle()

    def entropy(self, count):
        self.drawn += 1
        return sha256(b"%d" % self.drawn)[:count]

    def restart(self, path=None):
        """The process dies, and another opens the database (or a copy of it, at `path`); the broker lives on."""
        retained, self.link = self.link.retained, FakeLink()
        self.link.retained = retained
        self.store = Store.open(path or self.path) if self.path else self.store
        for topic in self.settings.subscriptions:
            if topic in retained:
                self.link.events.put(Arrived(topic, retained[topic], retained=True, token=0))
        self.start()

    def settle(self):
        while self.server.pump(0):
            pass

    def wait(self, seconds):
        self.now_ms += round(1000 * seconds)
        self.settle()

    def drop(self):
        """The broker goes and comes back, and has lost what it retained."""
        self.link.retained.clear()
        self.link.events.put(LinkDown("gone"))
        self.link.events.put(LinkUp(session_present=False, max_packet_bytes=1 << 16))
        self.settle()

    def arrive(self, topic, payload, *, retained=False):
        self.link.events.put(Arrived(topic, payload, retained=retained, token=0))

    # What an operator does.

    def place(self, order):
        place_order(self.arguments["spool"].folder, order)

    def obey(self, order):
        """Place an order, let the server find it, and return its answer."""
        self.place(order)
        self.settle()
        return self.state.answer_to(order.id)

    def give(self, command, **said):
        return self.obey(new_order(command, who="ada", at_ms=self.now_ms, arguments=said))

    # What the fleet sees.

    @property
    def state(self):
        return self.server.state

    @property
    def offer(self):
        return codec.decode(self.link.retained[TOPICS.round], RoundOffer)

    @property
    def presence(self):
        return codec.decode(self.link.retained[TOPICS.server("aggregator")], ServerState)

    def consensus(self):
        """Return (blocks, probabilities) as a device reads them."""
        count = sum("consensus" in topic for topic in self.link.retained)
        blocks = [codec.decode(self.link.retained[TOPICS.consensus(i)], ConsensusBlock) for i in range(count)]
        rows = [decode_body(b.body, b.codec, b.slice.count, b.slice.classes).probabilities() for b in blocks]
        return blocks, np.concatenate(rows)

    def receipts(self, device):
        return [codec.decode(payload, Receipt) for payload in self.link.published(TOPICS.receipt(device))]

    def device(self, name, **birth):
        return Device(self, name, **birth)


class Device:
    """A device that does as it is told."""

    def __init__(self, world, name, *, task=TASK, capabilities=("u8-sqrt", "u4-sqrt", "commands"), **birth):
        self.world, self.name = world, name
        self.birth = DeviceState(1, online=True, task=task, capabilities=capabilities, **birth)
        self.say_state(self.birth)

    def say_state(self, state):
        self.world.arrive(TOPICS.state(self.name), codec.encode(state))
        self.world.settle()

    def die(self, boot=1):
        self.say_state(DeviceState(boot, online=False))

    def contribution(self, offer=None, seed=0, base=None, **changes):
        """Return (payload, codes) for the offer on the table."""
        offer = offer or self.world.offer
        rng = np.random.default_rng([*self.name.encode(), seed])
        p = rng.dirichlet(np.full(offer.slice.classes, 0.5), offer.slice.count).astype(np.float32)
        codes = quantise(SoftLabels(changes.pop("probabilities", p), offer.temperature), offer.codec)
        body = encode_body(codes, base[1] if base else None)
        terms = {
            "slice": offer.slice,
            "temperature": offer.temperature,
            "codec": offer.codec,
            "body": body,
            "base": sha256(base[0]) if base else b"",
        }
        return codec.encode(Contribution(**{**terms, **changes})), codes

    def send(self, payload, *, round_id=None, kind=Kind.CONTRIBUTION, part_bytes=60_000, parts=None):
        """Send a payload, or only some of its parts; return the receipts that came of it."""
        before = len(self.world.receipts(self.name))
        for part in split(payload, round_id or self.world.offer.round, kind, part_bytes=part_bytes):
            if parts is None or part.index in parts:
                self.world.arrive(TOPICS.upload(self.name), codec.encode(part))
        self.world.settle()
        return self.world.receipts(self.name)[before:]

    def contribute(self, **changes):
        payload, codes = self.contribution(**changes)
        (receipt,) = self.send(payload)
        assert receipt.status is Status.STORED, receipt.reason
        return payload, codes

    def map(self, distances, public_set=PUBLIC_SET):
        codes = np.array(distances, np.uint8)
        return codec.encode(CompetenceMap(public_set, len(codes), encode_map(codes)))

    def send_map(self, distances, **changes):
        return self.send(self.map(distances, **changes), kind=Kind.COMPETENCE)


def fleet(world, names="abc"):
    """Bring devices online; the third of them opens a round."""
    return [world.device(name) for name in names]


def mean_of(*codes):
    """The plain mean of what devices said."""
    full = np.full(codes[0].classes, WEIGHT_ONE)
    voices = [Voice(str(k), c.integers(), np.zeros(len(c), np.uint8), full) for k, c in enumerate(codes)]
    return MeanProbabilities().consensus(voices)
