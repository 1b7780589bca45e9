"""The model's side of a device: jobs -> answers. It knows no round's course, no network and no store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.learning.ground import Ground, ProbeGround
from edge_agent.learning.label_ground import LabelGround
from edge_agent.learning.learned import private_path, spoke_privately
from edge_agent.learning.learner import Learner, PrivateFeatures
from edge_agent.learning.nearest import check_clusters
from edge_agent.learning.prototype_ground import PrototypeGround
from edge_agent.learning.seen import Seeing
from edge_agent.privacy.learner import PrivateLearner, Purse
from edge_agent.privacy.limits import PrivacyRefusedError
from edge_agent.privacy.saying import PRIVATE_PROBES
from edge_agent.private.data import Private
from edge_agent.process.postmortem import Cause
from edge_agent.round.events import CompetenceMapped, Predicted, Submission, WarmedUp, WorkDeferred, WorkFailed
from edge_agent.training.between import Between, DeferredError
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.errors import DecodeError, DigestError, FedistillError
from fd_protocol.identity import sha256
from fd_protocol.messages import CompetenceMap, ConsensusBlock, Contribution, PrivacyTerms, RoundOffer
from fd_protocol.payload import Codes, encode_body, quantise
from fd_protocol.prototypes import PrototypeSpace
from fd_runtime.fitting import LabelledRows, ProbeRows
from fd_runtime.models.model import F32, Features
from fd_runtime.models.opening import LoadedModel

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
        public: shows the probes that are labelled and learned from, as `model` sees them; None = there are none, and
            class prototypes, or the labels of the task, stand in their place.
        private: the device's rows, perhaps none.
        checkpoint_path: where what is learned is kept; None = nowhere.
        device: its id.
        space: of the prototypes that the device tells; None = it tells none.
        between: what happens between two steps of a training.
        memory_mb: most of a step's tensors; 0 = no bound.
        purse: what trainings under privacy terms are paid from; None: no source of private rows is configured, so that
            there is nothing to protect.
        went_on: called after every few samples that the model looks at.
        publish: takes the parameters with which the model speaks from now on: those of each training that was kept, and
            those of the checkpoint.
    """

    def __init__(
        self,
        model: LoadedModel,
        public: Seeing | None,
        private: Private,
        checkpoint_path: Path | None,
        *,
        device: str,
        space: PrototypeSpace | None = None,
        between: Between | None = None,
        memory_mb: float = 0.0,
        purse: Purse | None = None,
        went_on: Callable[[], object] = lambda: None,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        self._model, self._public, self._space, self._private = model, public, space, private
        self._publish, self._went_on = publish, went_on
        rows, fresh = self._rows_of(private), model.train_session.state
        bundle, seed, between = model.manifest.digest, device.encode(), between or Between()
        self._ground = self._first_ground(_split(rows, private))
        self._learner = Learner(
            model,
            bundle,
            _split(rows, private),
            checkpoint_path,
            seed=seed,
            between=between,
            memory_mb=memory_mb,
            publish=publish,
        )
        self._private_learner = PrivateLearner(
            model,
            bundle,
            fresh,
            rows,
            None if checkpoint_path is None else private_path(checkpoint_path),
            purse=purse,
            seed=seed,
            between=between,
            memory_mb=memory_mb,
            publish=publish,
        )
        own_terms = purse is not None and purse.own.epsilon > 0
        if own_terms or (checkpoint_path is not None and spoke_privately(checkpoint_path)):
            self._speaks: Learner | PrivateLearner = self._private_learner
        else:
            self._speaks = self._learner
        if self._speaks.has_learned:
            publish(self._speaks.theta)

    def renew(self, private: Private) -> None:
        """Go on with other private rows; what was learned stays."""
        rows = self._rows_of(private)
        features = _split(rows, private)
        self._private, self._ground = private, self._first_ground(features)
        self._learner.renew(features)
        self._private_learner.renew(rows)

    def _rows_of(self, private: Private) -> LabelledRows:
        """Return private rows as the tail reads them, in their order."""
        classes = len(self._model.manifest.task.classes)
        return LabelledRows(private.features(self._model, self._went_on), private.labels, classes)

    def _first_ground(self, features: PrivateFeatures) -> Ground | None:
        """Return what a device without a public set stands on; None: a round says which set it is about."""
        if self._public is not None:
            return None
        if self._space is not None:
            return PrototypeGround(self._space, features.training)
        return LabelGround(self._model.manifest.task.digest, features.training)

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
            kind = Cause.OUT_OF_MEMORY.value if isinstance(error, MemoryError) else type(error).__name__
            return Answer(WorkFailed(job.work, f"{kind}: {error}"))

    def logits(self, features: Features) -> F32:
        """Return what the model says now, for those who measure it."""
        return self._speaks.logits(features)

    def _warm_up(self, job: WarmUpJob) -> Answer:
        speaker = self._speaker(job.privacy)
        if isinstance(speaker, PrivateLearner):
            speaker.warm_up(job.privacy)
            return Answer(WarmedUp(is_private=True))
        speaker.warm_up(job.terms)
        return Answer(WarmedUp(private_epoch=job.private_epoch))

    def _ground_of(self, public_set: bytes) -> Ground:
        """Return what a device stands on in a round about `public_set`.

        Raises:
            DecodeError: `unknown_public_set`.
        """
        if self._public is not None and (self._ground is None or self._ground.digest != public_set):
            self._ground = None  # it may be large: let it go before the next one comes
            self._ground = ProbeGround(self._public.seen(public_set), self._private, self._model.manifest.task)
        assert self._ground is not None  # without a public set there is one from the beginning
        return self._ground

    def _map_competence(self, job: CompetenceJob) -> Answer:
        ground = self._ground_of(job.public_set)
        codes, digest = ground.standing(), ground.digest
        payload = codec.encode(CompetenceMap(digest, len(codes), encode_map(codes), job.private_epoch))
        return Answer(CompetenceMapped(digest, job.private_epoch, sha256(payload)), (payload,))

    def _predict(self, job: PredictJob) -> Answer:
        offer = job.offer
        if job.privacy.is_asked:
            self._private_learner.check_weights()
        speaker = self._speaker(job.privacy)
        labels = self._ground_under(job.privacy, offer.slice.public_set).labels(
            speaker.logits, offer.slice, offer.temperature
        )  # fmt: skip
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
        speaker, own = self._speaker(job.privacy), Codes.from_bytes(job.own) if job.own else None
        ground = self._ground_under(job.privacy, blocks[0].slice.public_set)
        lesson, temperature = ground.lesson(speaker.logits, blocks, own), blocks[0].temperature
        return Answer(speaker.train(job.consensus_sha256, lesson, temperature, job.terms))

    def _refresh(self, job: RefreshJob) -> Answer:
        learner = self._speaker(PrivacyTerms())
        assert isinstance(learner, Learner)
        lesson: ProbeRows | None = None
        temperature = 1.0
        if job.messages:
            blocks = _read_consensus(job.messages, job.consensus_sha256)
            ground, temperature = self._ground_of(blocks[0].slice.public_set), blocks[0].temperature
            lesson = ground.lesson(learner.logits, blocks, None)
        return Answer(learner.refresh(job.private_epoch, lesson, temperature, job.terms))

    def _speaker(self, privacy: PrivacyTerms) -> Learner | PrivateLearner:
        """Return the learner that is meant by these terms; from now on the model speaks with its weights."""
        speaker = self._private_learner if privacy.is_asked else self._learner
        if speaker is not self._speaks:
            self._speaks = speaker
            self._publish(speaker.theta)
        return speaker

    def _ground_under(self, privacy: PrivacyTerms, public_set: bytes) -> Ground:
        """Raises: PrivacyRefusedError: the probes are private rows, and nobody may look at them for an answer."""
        if privacy.is_asked and self._public is None:
            raise PrivacyRefusedError(PRIVATE_PROBES)
        return self._ground_of(public_set)


def _split(rows: LabelledRows, private: Private) -> PrivateFeatures:
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
    check_clusters(blocks)
    if len({block.temperature for block in blocks}) > 1:
        raise DecodeError("invalid", "a consensus has one temperature")
    return blocks
