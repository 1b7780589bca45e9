"""The student: the server's own model, taught by every consensus (ensemble distillation as in FedDF, Lin et al. 2020).

It sees probes and consensus, never a device's data, and is judged on release canaries. It learns after the consensus
went out, on the train-step graph of its bundle, as a device does; its optimizer goes on from round to round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from broker_server.core.release_gate import Hits
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import ConsensusBlock
from fd_protocol.payload import decode_body
from fd_protocol.schema import decode, encode, keyed
from fd_protocol.soft_labels import F32, SoftLabels, soften
from fd_protocol.terms import Slice
from fd_runtime.fitting import FitTerms, ProbeRows, fit
from fd_runtime.models.model import Features, Inputs, OptimizerState
from fd_runtime.models.opening import LoadedModel

_F32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a student is after a consensus: its weights as bytes, and loss, accuracy and the like."""

    weights: bytes
    metrics: Mapping[str, float]


class Learner(Protocol):
    """A model that can be taught."""

    def learn(self, blocks: Sequence[ConsensusBlock], weights: bytes | None) -> Lesson:
        """Return what it is after the consensus in `blocks`, going on from `weights` of an earlier lesson.

        Raises:
            TrainingDivergedError: the loss exploded; nothing was learnt.
            DecodeError: a block or the weights are damaged.
        """
        ...

    def speak(self, weights: bytes, part: Slice, temperature: float) -> SoftLabels:
        """Return what it says with these weights of the probes in `part`."""
        ...

    def hits(self, weights: bytes | None) -> Hits:
        """Return on which release canaries it is right with these weights; None: with those that it began with."""
        ...


@dataclass(frozen=True, slots=True)
class StudentTerms:
    """How the student learns.

    Attributes:
        epochs: passes over the probes, each round.
        learning_rate: of every step.
        batch_rows: most probes of a step.
    """

    epochs: int = 4
    learning_rate: float = 2e-3
    batch_rows: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.learning_rate <= 0 or self.batch_rows < 1:
            raise InvalidValueError("epochs and batch_rows are at least 1, learning_rate is above 0")


@dataclass(frozen=True, slots=True)
class StudentWeights:
    """A student's state in the store; vectors are little-endian float32 in the layout of `bundle`."""

    bundle: bytes = keyed(1)
    theta: bytes = keyed(2)
    slots: Mapping[str, bytes] = field(default_factory=dict, metadata={"key": 3})
    step: int = keyed(4, default=0)

    @classmethod
    def of(cls, bundle: bytes, state: OptimizerState) -> StudentWeights:
        slots = {name: vector.astype(_F32).tobytes() for name, vector in state.slots.items()}
        return cls(bundle, state.theta.astype(_F32).tobytes(), slots, state.step)

    @property
    def state(self) -> OptimizerState:
        slots = {name: _vector(data) for name, data in self.slots.items()}
        return OptimizerState(_vector(self.theta), slots, self.step)

    def to_bytes(self) -> bytes:
        return encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> StudentWeights:
        """Return the weights that `to_bytes` wrote.

        Raises:
            DecodeError: it did not.
        """
        return decode(cls, data)


class Student:
    """A bundle's model, taught on probes.

    Args:
        model: the bundle, opened.
        bundle: its digest.
        inputs: the public set's probes, preprocessed, [count, *sample_shape].
        terms: how it learns.
        canaries: probes that judge it.
    """

    def __init__(
        self, model: LoadedModel, bundle: bytes, inputs: Inputs, terms: StudentTerms, canaries: LabelledProbes
    ) -> None:
        self._model, self._bundle, self._inputs, self._terms = model, bundle, inputs, terms
        self._canaries = canaries
        self._fresh = model.train_session.state

    @cached_property
    def _features(self) -> Features:
        """Extracted once, at the first lesson, on the thread that teaches."""
        return self._model.features(self._inputs)

    def learn(self, blocks: Sequence[ConsensusBlock], weights: bytes | None) -> Lesson:
        """See `Learner`."""
        session = self._model.train_session
        session.state = self._state(weights)
        first, targets = blocks[0], np.concatenate([_targets(block) for block in blocks])
        probes = ProbeRows(self._features[first.slice.start : first.slice.start + len(targets)], targets)
        terms = FitTerms(
            epochs=self._terms.epochs,
            batch_rows=self._terms.batch_rows,
            learning_rate=self._terms.learning_rate,
            temperature=first.temperature,
        )
        # The order of rows is a function of the consensus: a lesson that is repeated after a crash is the same.
        rng = np.random.default_rng(np.frombuffer(first.consensus_sha256, np.uint32))
        report = fit(session, None, probes, terms, rng)
        learnt = StudentWeights.of(self._bundle, session.state).to_bytes()
        accuracy = {"accuracy": float(self.hits(learnt).mean())} if self._canaries.probes else {}
        return Lesson(learnt, {"loss": report.epoch_losses[-1], **accuracy})

    def speak(self, weights: bytes, part: Slice, temperature: float) -> SoftLabels:
        """See `Learner`."""
        self._model.tail.load(self._state(weights).theta)
        logits = self._model.tail.logits(self._features[part.start : part.start + part.count])
        return SoftLabels(soften(logits, temperature), temperature)

    def hits(self, weights: bytes | None) -> Hits:
        """See `Learner`."""
        self._model.tail.load(self._state(weights).theta)
        claims = self._model.tail.logits(self._features[list(self._canaries.probes)]).argmax(axis=1)
        return np.asarray(claims == np.array(self._canaries.labels))

    def _state(self, weights: bytes | None) -> OptimizerState:
        """Weights of another bundle are of no use: the operator has given the server another student."""
        known = StudentWeights.from_bytes(weights) if weights else None
        return known.state if known and known.bundle == self._bundle else self._fresh


def _targets(block: ConsensusBlock) -> F32:
    return decode_body(block.body, block.codec, block.slice.count, block.slice.classes).probabilities()


def _vector(data: bytes) -> F32:
    return np.frombuffer(data, _F32).astype(np.float32)
