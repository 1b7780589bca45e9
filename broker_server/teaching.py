"""The long work after a consensus: the student learns it, is compared with what the fleet runs, and is released."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from broker_server.consensus import to_blocks
from broker_server.core.events import MakeRelease, Release, ReleaseFailed, ReleaseMade, StudentTrained, TrainStudent
from broker_server.core.release_gate import ReleaseGate
from broker_server.offers import COMMON_CODEC
from broker_server.shelf import Shelf
from broker_server.student import Learner, StudentWeights
from broker_server.work import Finished
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import ConsensusBlock, RoundOffer
from fd_protocol.payload import quantise
from fd_runtime.storage.store import Store


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
    """Make a bundle of the student's weights; `clock` is UTC milliseconds, `beside` packages that stay vouched for."""

    effect: MakeRelease
    shelf: Shelf
    clock: Callable[[], int]
    beside: tuple[bytes, ...] = ()

    def run(self, store: Store) -> Finished:
        effect = self.effect
        weights = StudentWeights.from_bytes(store.blob(effect.weights))
        shelved = self.shelf.put(effect.number, weights, self.clock() / 1000, self.beside)
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
            family=self.shelf.family,
        )
        return Finished((ReleaseMade(release),))

    def failed(self, reason: str) -> Finished:
        """The fleet goes on with what it runs."""
        return Finished((ReleaseFailed(self.effect.weights, reason),))


def _blob(store: Store, digest: bytes) -> bytes | None:
    return store.blob(digest) if digest else None
