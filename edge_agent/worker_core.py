"""The model's side of a device: jobs -> answers. It knows no round's course, no network and no store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent.events import CompetenceMapped, Predicted, Submission, WarmedUp, WorkDeferred, WorkFailed
from edge_agent.ground import Ground, ProbeGround
from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.label_ground import LabelGround
from edge_agent.learner import Learner, PrivateFeatures
from edge_agent.privacy.learner import PrivateLearner, Purse
from edge_agent.privacy.limits import PrivacyRefusedError
from edge_agent.privacy.saying import PRIVATE_PROBES
from edge_agent.private_data import PrivateRows
from edge_agent.seen import SeenProbes, each
from edge_agent.training.between import Between, DeferredError
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.errors import DecodeError, DigestError, FedistillError
from fd_protocol.identity import sha256
from fd_protocol.messages import CompetenceMap, ConsensusBlock, Contribution, PrivacyTerms, RoundOffer
from fd_protocol.payload import Codes, encode_body, quantise
from fd_runtime.fitting import LabelledRows, ProbeRows
from fd_runtime.model import F32, Features
from fd_runtime.opening import LoadedModel

log = logging.getLogger("edge-agent")


class OverBudgetError(FedistillError):
    """A contribution has more bytes than the offer allows."""

    def __init__(self, payload_bytes: int, budget_bytes: int) -> None:
        self.payload_bytes, self.budget_bytes = payload_bytes, budget_bytes
        super().__init__(f"{payload_bytes} bytes, the offer allows {budget_bytes}")


class WorkerCore:
    """A model, the probes, and a device's private rows.

    Without privacy terms one learner joins private rows and consensus; under them another, which paid to read the rows
    and kept its weights apart, does all that the terms of a job are about.

    Args:
        model: a bundle on a runtime, freshly opened.
        public: whose probes are labelled and learned from, as `model` sees them; None = there are none, and the labels
            of the task stand in their place.
        private: the device's rows, perhaps none.
        checkpoint_path: where what is learned is kept; None = nowhere.
        device: its id.
        between: what happens between two steps of a training.
        memory_mb: most of a step's tensors; 0 = no bound.
        purse: what trainings under privacy terms are paid from; None: no source of private rows is configured, so that
            there is nothing to protect.
    """

    def __init__(
        self,
        model: LoadedModel,
        public: SeenProbes | None,
        private: PrivateRows,
        checkpoint_path: Path | None,
        *,
        device: str,
        between: Between | None = None,
        memory_mb: float = 0.0,
        purse: Purse | None = None,
    ) -> None:
        self._model, self._public = model, public
        rows, fresh = _rows_of(model, private), model.train_session.state
        bundle, seed, between = model.manifest.digest, device.encode(), between or Between()
        self._ground = self._ground_of(private, rows)
        self._learner = Learner(
            model, bundle, _split(rows, private), checkpoint_path, seed=seed, between=between, memory_mb=memory_mb
        )  # fmt: skip
        self._private_learner = PrivateLearner(
            model,
            bundle,
            fresh,
            rows,
            private_path(checkpoint_path),
            purse=purse,
            seed=seed,
            between=between,
            memory_mb=memory_mb,
        )
        own_terms = purse is not None and purse.own.epsilon > 0
        self._speaks: Learner | PrivateLearner = self._private_learner if own_terms else self._learner

    def renew(self, private: PrivateRows) -> None:
        """Go on with other private rows; what was learned stays."""
        rows = _rows_of(self._model, private)
        self._ground = self._ground_of(private, rows)
        self._learner.renew(_split(rows, private))
        self._private_learner.renew(rows)

    def handle(self, job: Job) -> Answer:
        """Do a job. What goes wrong, but for a mistake of ours, is an answer too: `WorkFailed`."""
        try:
            match job:
                case WarmUpJob():
                    return self._warm_up(job)
                case CompetenceJob():
                    return self._map_competence(job)
                case PredictJob():
                    return self._predict(job)
                case TrainJob():
                    return self._train(job)
                case RefreshJob():
                    return self._refresh(job)
        except DeferredError as deferred:
            return Answer(WorkDeferred(job.work, deferred.reason))
        except PrivacyRefusedError as refusal:
            log.warning("%s refused: %s", job.work.task.value, refusal.reason)
            return Answer(WorkFailed(job.work, refusal.reason))
        except (FedistillError, MemoryError, OSError) as error:
            log.warning("%s failed: %s", job.work.task.value, error)
            return Answer(WorkFailed(job.work, f"{type(error).__name__}: {error}"))

    def logits(self, features: Features) -> F32:
        """Return what the model says now, for those who measure it."""
        return self._speaks.logits(features)

    def _warm_up(self, job: WarmUpJob) -> Answer:
        if job.privacy.is_asked:
            self._speaks = self._private_learner
            self._private_learner.warm_up(job.privacy)
            return Answer(WarmedUp(is_private=True))
        self._speaks = self._learner
        self._learner.warm_up(job.terms)
        return Answer(WarmedUp())

    def _map_competence(self, job: CompetenceJob) -> Answer:
        codes, digest = self._ground.standing(), self._ground.digest
        payload = codec.encode(CompetenceMap(digest, len(codes), encode_map(codes), job.private_epoch))
        return Answer(CompetenceMapped(digest, job.private_epoch, sha256(payload)), (payload,))

    def _predict(self, job: PredictJob) -> Answer:
        offer = job.offer
        if job.privacy.is_asked:
            self._private_learner.check_weights()
        self._speaks = self._private_learner if job.privacy.is_asked else self._learner
        labels = self._ground_under(job.privacy).labels(self._speaks.logits, offer.slice, offer.temperature)
        codes = quantise(labels, offer.codec, offer.top_k)
        full = _contribution(offer, encode_body(codes))
        payload = full
        if job.base:
            difference = _contribution(offer, encode_body(codes, Codes.from_bytes(job.base_codes)), job.base)
            payload = min(difference, full, key=len)
        if len(payload) > offer.byte_budget:
            raise OverBudgetError(len(payload), offer.byte_budget)
        stored = codes.to_bytes()
        submission = Submission(sha256(payload), sha256(stored), sha256(full))
        return Answer(Predicted(offer.round, submission), (payload, stored, full))

    def _train(self, job: TrainJob) -> Answer:
        blocks = _read_consensus(job.messages, job.consensus_sha256)
        ground, temperature = self._ground_under(job.privacy), blocks[0].temperature
        lesson = ground.lesson(blocks, Codes.from_bytes(job.own) if job.own else None)
        if job.privacy.is_asked:
            self._speaks = learner = self._private_learner
            return Answer(learner.train(job.consensus_sha256, lesson, temperature, job.terms))
        self._speaks = self._learner
        return Answer(self._learner.train(job.consensus_sha256, lesson, temperature, job.terms))

    def _refresh(self, job: RefreshJob) -> Answer:
        lesson: ProbeRows | None = None
        temperature = 1.0
        if job.messages:
            blocks = _read_consensus(job.messages, job.consensus_sha256)
            lesson, temperature = self._ground.lesson(blocks, None), blocks[0].temperature
        self._speaks = self._learner
        return Answer(self._learner.refresh(job.private_epoch, lesson, temperature, job.terms))

    def _ground_of(self, private: PrivateRows, rows: LabelledRows) -> Ground:
        task = self._model.manifest.task
        if self._public is None:
            return LabelGround(task.digest, _split(rows, private).training)
        return ProbeGround(self._public, private, task)

    def _ground_under(self, privacy: PrivacyTerms) -> Ground:
        """Raises: PrivacyRefusedError: the probes are private rows, and nobody may look at them for an answer."""
        if privacy.is_asked and self._public is None:
            raise PrivacyRefusedError(PRIVATE_PROBES)
        return self._ground


def private_path(checkpoint_path: Path | None) -> Path | None:
    """Return where what is learned under privacy terms is kept."""
    return None if checkpoint_path is None else checkpoint_path.with_name(f"{checkpoint_path.name}-private")


def _rows_of(model: LoadedModel, private: PrivateRows) -> LabelledRows:
    """Return private rows as the tail reads them, in their order."""
    task = model.manifest.task
    # No runtime promises to bear a batch of no rows; one row of zeros tells the features' shape.
    samples = private.samples if len(private) else np.zeros((1, *task.sample_shape), task.sample_dtype)
    features = each(samples, task, model.features)[: len(private)]
    return LabelledRows(features, private.labels, len(task.classes))


def _split(rows: LabelledRows, private: PrivateRows) -> PrivateFeatures:
    training, hold_out = (
        LabelledRows(rows.features[mask], rows.labels[mask], rows.classes) for mask in private.split()
    )
    return PrivateFeatures(training, hold_out)


def _contribution(offer: RoundOffer, body: bytes, base: bytes = b"") -> bytes:
    return codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, body, base, offer.top_k))


def _read_consensus(messages: Sequence[bytes], consensus_sha256: bytes) -> list[ConsensusBlock]:
    """Return the blocks of a consensus.

    Raises:
        DigestError: they are not the consensus that their headers name.
        DecodeError: not blocks, or at different temperatures.
    """
    blocks = [codec.decode(message, ConsensusBlock) for message in messages]
    digest = sha256(b"".join(block.body for block in blocks))
    if digest != consensus_sha256:
        raise DigestError("consensus", consensus_sha256, digest)
    if len({block.temperature for block in blocks}) > 1:
        raise DecodeError("invalid", "a consensus has one temperature")
    return blocks
