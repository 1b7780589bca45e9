"""A device with a real agent and store, on a wire that a test holds in its hands."""

from __future__ import annotations

import itertools
from queue import SimpleQueue

from edge_agent.agent import Agent
from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, TrainJob, WarmUpJob
from edge_agent.presence import begin_life
from edge_agent.round.eligibility import Profile
from edge_agent.round.events import CompetenceMapped, Predicted, Submission, Trained, WarmedUp
from edge_agent.worker import InlineWorker
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import ConsensusBlock, Contribution, DeviceState, Kind, Part, Receipt, RoundReport, Status
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkUp, Published
from fd_runtime.storage.store import Store
from tests.edge_agent.builders import FEDERATION, PUBLIC_SET, TASK, offer, round_id

TOPICS = Topics(FEDERATION)
PROFILE = Profile("dev-1", FEDERATION, TASK, 3, sha256(b"bundle"), "mlp-s", "numpy", PUBLIC_SET, 8)


class Wire:
    """A `Link` that keeps what is published until the test confirms it."""

    def __init__(self):
        self.events = SimpleQueue()
        self.published = []
        """(token, topic, payload, retain)."""
        self.expiries_s = {}
        """Of what expires, by token."""
        self.acked = []
        self.tokens = itertools.count(1)
        self.on_publish = lambda topic, payload: None

    def publish(self, topic, payload, *, retain=False, expiry_s=None):
        self.on_publish(topic, payload)
        token = next(self.tokens)
        self.published.append((token, topic, payload, retain))
        if expiry_s is not None:
            self.expiries_s[token] = expiry_s
        return token

    def ack(self, arrived):
        self.acked.append(arrived)

    def close(self):
        pass

    def arrive(self, topic, message):
        payload = message if isinstance(message, bytes) else codec.encode(message)
        arrived = Arrived(topic, payload, retained=False, token=next(self.tokens))
        self.events.put(arrived)
        return arrived

    def confirm_all(self):
        for token, *_ in self.published:
            self.events.put(Published(token))

    def messages(self, topic, kind):
        return [codec.decode(payload, kind) for _, where, payload, _ in self.published if where == topic]


class ScriptedModel:
    """The worker's side without a model: answers depend on the job alone. `size` is that of a contribution's body."""

    def __init__(self, size=100):
        self.size = size
        self.jobs = []

    def handle(self, job: Job) -> Answer:
        self.jobs.append(job)
        match job:
            case WarmUpJob():
                return Answer(WarmedUp(private_epoch=job.private_epoch))
            case CompetenceJob(_, private_epoch, public_set):
                payload = b"map of " + public_set
                return Answer(CompetenceMapped(public_set, private_epoch, sha256(payload)), (payload,))
            case PredictJob(work, asked, base):
                full, based = self.contribution(asked, b""), self.contribution(asked, base)
                codes = b"codes of " + bytes([work.round.number])
                return Answer(
                    Predicted(work.round, Submission(sha256(based), sha256(codes), sha256(full))), (full, based, codes)
                )
            case TrainJob(_, consensus_sha256):
                return Answer(Trained(consensus_sha256, accepted=True, metrics={"loss": 0.5}))

    def contribution(self, asked, base):
        body = bytes([asked.round.number]) * self.size
        return codec.encode(Contribution(asked.slice, asked.temperature, asked.codec, body, base, asked.top_k))


class Device:
    """Kill it with `restart`: nothing is closed, only the store survives."""

    def __init__(self, profile=PROFILE, model=None, find_set=lambda _digest: 0):
        self.profile, self.model, self.find_set = profile, model or ScriptedModel(), find_set
        self.store = Store.open(None)
        self.ms = 0
        self.restart()

    def restart(self, **hooks):
        begin_life(self.store)
        self.wire = Wire()
        worker = InlineWorker(self.model.handle, self.wire.events.put)
        self.agent = Agent(
            self.profile,
            self.store,
            self.wire,
            worker,
            lambda: self.ms,
            version="1.0",
            **{"find_set": self.find_set, **hooks},
        )

    @property
    def state(self):
        return self.agent.state

    def pump(self):
        while self.agent.pump(0) or not self.wire.events.empty():
            pass

    def connect(self, max_packet_bytes=1 << 20):
        self.wire.events.put(LinkUp(session_present=True, max_packet_bytes=max_packet_bytes))
        self.pump()

    def tell(self, notice):
        """The worker says something unasked."""
        self.wire.events.put(notice)
        self.pump()

    def hear(self, topic, message):
        arrived = self.wire.arrive(topic, message)
        self.pump()
        return arrived

    def hear_offer(self, number=1, **changes):
        return self.hear(TOPICS.round, offer(number, **changes))

    def hear_consensus(self, number=1, epoch=7):
        return self.hear(TOPICS.consensus(0), consensus_block(number, epoch))

    def hear_receipt(self, part, status=Status.STORED, reason="", missing=()):
        receipt = Receipt(part.round, part.kind, part.payload_sha256, status, reason, missing)
        return self.hear(TOPICS.receipt(self.profile.device), receipt)

    def confirm(self):
        self.wire.confirm_all()
        self.pump()

    def parts(self, kind=Kind.CONTRIBUTION):
        sent = self.wire.messages(TOPICS.upload(self.profile.device), Part)
        return [part for part in sent if part.kind is kind]

    def births(self):
        return self.wire.messages(TOPICS.state(self.profile.device), DeviceState)

    def reports(self):
        return self.wire.messages(TOPICS.report(self.profile.device), RoundReport)


def consensus_block(number=1, epoch=7):
    body = b"consensus" + bytes([number])
    asked = offer(number, epoch)
    return ConsensusBlock(
        round_id(number, epoch), sha256(body), 0, 1, asked.slice, asked.temperature, asked.codec, body
    )
