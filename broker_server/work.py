"""The long work of a round, away from the loop: make a consensus, teach the student. Results are events and bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from broker_server.consensus import Joined, join, to_blocks
from broker_server.events import (
    Aggregate,
    AggregationFailed,
    ConsensusMade,
    Event,
    MakeRelease,
    Portion,
    Release,
    ReleaseFailed,
    ReleaseMade,
    StudentTrained,
    TrainStudent,
)
from broker_server.offers import COMMON_CODEC
from broker_server.portions import lies_in, renewed, together
from broker_server.release_gate import ReleaseGate
from broker_server.rules import rule_named
from broker_server.settings import MethodSettings
from broker_server.shelf import Shelf
from broker_server.standing import Standing, Tally, chosen_classes
from broker_server.student import Learner, StudentWeights
from broker_server.trust import TrustTable
from broker_server.voices import Speakers
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.identity import sha256
from fd_protocol.messages import ConsensusBlock, RoundOffer
from fd_protocol.payload import quantise
from fd_runtime.store import Store

log = logging.getLogger("broker-server")


@dataclass(frozen=True, slots=True)
class Finished:
    """Events, and the bytes that they name; both become durable together.

    `standings` of a consensus are for the chronicle: no event carries them, or the state would grow with the devices.
    """

    events: tuple[Event, ...]
    blobs: tuple[bytes, ...] = ()
    standings: tuple[Standing, ...] = ()


class Task(Protocol):
    """One piece of long work, with all that it needs but the store."""

    def run(self, store: Store) -> Finished:
        """Do it; whatever it raises is its failure."""
        ...

    def failed(self, reason: str) -> Finished:
        """Return what its failure means."""
        ...


def work_on(task: Task, store: Store, deliver: Callable[[Finished], None]) -> None:
    """Do `task` with a view of `store` for this thread, and deliver what came of it.

    A failure is a result too, or a payload that breaks the arithmetic would stop the server at every start.
    """
    try:
        with store.reader() as reader:
            finished = task.run(reader)
    except Exception as error:
        log.exception("%s failed", type(task).__name__)
        finished = task.failed(type(error).__name__)
    deliver(finished)


@dataclass(frozen=True, slots=True)
class Whole:
    """A consensus with all that stays beside it, and what an operator may want to know of that."""

    blocks: tuple[ConsensusBlock, ...]
    portions: tuple[Portion, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What of the last consensus may stay beside a new one.

    Attributes:
        held: the portions that still hold.
        blocks: digests of the blocks of the last consensus.
        up_bytes: that the contributions to the new one have.
    """

    held: tuple[Portion, ...]
    blocks: tuple[bytes, ...]
    up_bytes: int

    def of(self, joined: Joined, offer: RoundOffer, store: Store) -> Whole:
        """Return the consensus of a round with all that stays."""
        others = [portion for portion in self.held if portion.slice != offer.slice]
        last = [codec.decode(store.blob(digest), ConsensusBlock) for digest in self.blocks]
        kept = [block for block in last if any(lies_in(block.slice, portion.slice) for portion in others)]
        number, probes = offer.round.number, sum(portion.slice.count for portion in others)
        metrics = {
            "kept_probes": float(probes),
            "kept_rounds": float(max((number - portion.round for portion in others), default=0)),
            # What asking for them as well would have cost, at this round's bytes a probe.
            "saved_up_bytes": self.up_bytes * probes / offer.slice.count,
            "repeated_down_bytes": float(sum(len(block.body) for block in kept)),
        }
        fresh = Portion(offer.slice, offer.temperature, number, joined.metrics["entropy_nats"])
        return Whole(together(joined.blocks, kept), renewed(self.held, fresh), metrics)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Make the consensus of a round.

    Attributes:
        effect: which contributions.
        offer: of the round.
        method: how they are joined.
        trust: digest of the trust that was earned in the round before; empty = none.
        canaries: that judge the devices in this round.
        clock: UTC milliseconds.
        renewal: what stays beside it; None = nothing, the consensus is on the offered slice alone.
    """

    effect: Aggregate
    offer: RoundOffer
    method: MethodSettings
    trust: bytes
    canaries: LabelledProbes
    clock: Callable[[], int]
    renewal: Renewal | None = None

    def run(self, store: Store) -> Finished:
        with store.moment():  # the voices are heard twice, and a device may send a new map at any time
            return self._run(store)

    def _run(self, store: Store) -> Finished:
        speakers = Speakers(store, self.effect.round.federation, self.method.absence, self._trust(store))
        rule = rule_named(self.method.name, self.method.terms)
        tally = Tally(rule, self.offer.slice.count)
        voices = tally.watch(speakers.voices(self.effect, self.offer))
        joined = join(voices, rule, self.offer, COMMON_CODEC, self.canaries)
        again = speakers.speech(self.effect, self.offer)
        standings = tally.standings(again, chosen_classes(joined.blocks), joined.trust.means())
        whole = Whole(joined.blocks) if self.renewal is None else self.renewal.of(joined, self.offer, store)
        blocks, earned = [codec.encode(block) for block in whole.blocks], joined.trust.to_bytes()
        event = ConsensusMade(
            self.effect.round,
            whole.blocks[0].consensus_sha256,
            tuple(sha256(block) for block in blocks),
            self.clock(),
            trust=sha256(earned),
            metrics={**joined.metrics, **whole.metrics},
            portions=whole.portions,
        )
        return Finished((event,), (*blocks, earned), tuple(standings))

    def failed(self, reason: str) -> Finished:
        return Finished((AggregationFailed(self.effect.round, reason, self.clock()),))

    def _trust(self, store: Store) -> TrustTable:
        classes = self.offer.slice.classes
        return TrustTable.from_bytes(store.blob(self.trust), classes) if self.trust else TrustTable(classes)


@dataclass(frozen=True, slots=True)
class Teaching:
    """Teach the student a consensus.

    Attributes:
        effect: which one.
        student: who learns.
        offer: of the round, where the student's own word is what goes out.
        gate: compares it with what the fleet runs; None = nobody does, there are no canaries to ask.
    """

    effect: TrainStudent
    student: Learner
    offer: RoundOffer | None = None
    gate: ReleaseGate | None = None

    def run(self, store: Store) -> Finished:
        blocks = [codec.decode(store.blob(digest), ConsensusBlock) for digest in self.effect.blocks]
        lesson = self.student.learn(blocks, _blob(store, self.effect.weights))
        metrics, is_better = dict(lesson.metrics), False
        if self.gate is not None:
            released = self.student.hits(_blob(store, self.effect.released))
            verdict = self.gate.judge(released, self.student.hits(lesson.weights))
            metrics |= {"release_gain": verdict.gain, "release_p": verdict.p}
            is_better = verdict.is_better
        spoken = self._speak(lesson.weights, blocks)
        digests = tuple(sha256(block) for block in spoken)
        event = StudentTrained(self.effect.round, sha256(lesson.weights), metrics, digests, is_better)
        return Finished((event,), (lesson.weights, *spoken))

    def _speak(self, weights: bytes, blocks: list[ConsensusBlock]) -> list[bytes]:
        """Say what the student thinks of all probes that the consensus is on."""
        if self.offer is None:
            return []
        first, count = blocks[0].slice, sum(block.slice.count for block in blocks)
        offer = replace(self.offer, slice=replace(first, count=count))
        labels = self.student.speak(weights, offer.slice, offer.temperature)
        return [codec.encode(block) for block in to_blocks(quantise(labels, COMMON_CODEC), offer)]

    def failed(self, reason: str) -> Finished:
        """The student stays as it was, and waits for the next consensus."""
        return Finished((StudentTrained(self.effect.round, metrics={f"failed_{reason}": 1.0}),))


@dataclass(frozen=True, slots=True)
class Releasing:
    """Make a bundle of the student's weights; `clock` is UTC milliseconds."""

    effect: MakeRelease
    shelf: Shelf
    clock: Callable[[], int]

    def run(self, store: Store) -> Finished:
        effect = self.effect
        weights = StudentWeights.from_bytes(store.blob(effect.weights))
        shelved = self.shelf.put(effect.number, weights)
        release = Release(
            number=effect.number,
            round=effect.round,
            weights=effect.weights,
            bundle=shelved.bundle.digest,
            version=shelved.bundle.manifest.version,
            package=shelved.package,
            package_bytes=shelved.package_bytes,
            is_verified=effect.is_verified,
            at_ms=self.clock(),
        )
        return Finished((ReleaseMade(release),))

    def failed(self, reason: str) -> Finished:
        """The fleet goes on with what it runs."""
        return Finished((ReleaseFailed(self.effect.weights, reason),))


def _blob(store: Store, digest: bytes) -> bytes | None:
    return store.blob(digest) if digest else None
