"""The model's side of a device: jobs -> answers. It knows no round's course, no network and no store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.events import CompetenceMapped, Predicted, Submission, WarmedUp, WorkFailed
from edge_agent.ground import Ground, ProbeGround
from edge_agent.jobs import Answer, CompetenceJob, Job, PredictJob, TrainJob, WarmUpJob
from edge_agent.label_ground import LabelGround
from edge_agent.learner import Learner, PrivateFeatures
from edge_agent.nearest import check_clusters
from edge_agent.private_data import Private
from edge_agent.process.postmortem import Cause
from edge_agent.prototype_ground import PrototypeGround
from edge_agent.seen import Seeing
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.errors import DecodeError, DigestError, FedistillError
from fd_protocol.identity import sha256
from fd_protocol.messages import CompetenceMap, ConsensusBlock, Contribution, RoundOffer
from fd_protocol.payload import Codes, encode_body, quantise
from fd_protocol.prototypes import PrototypeSpace
from fd_runtime.fitting import LabelledRows
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

    Args:
        model: a bundle on a runtime, freshly opened.
        public: shows the probes that are labelled and learned from, as `model` sees them; None = there are none, and
            class prototypes, or the labels of the task, stand in their place.
        private: the device's rows, perhaps none.
        checkpoint_path: where what is learned is kept; None = nowhere.
        device: its id.
        space: of the prototypes that the device tells; None = it tells none.
        should_stop: asked after every step of a training; True breaks it off with `BrokenOffError`.
        publish: takes the parameters of each training that was accepted, and those of the checkpoint.
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
        should_stop: Callable[[], bool] = lambda: False,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        self._model, self._public, self._space, self._private = model, public, space, private
        features = _features_of(model, private)
        self._ground = self._first_ground(features)
        self._learner = Learner(
            model,
            model.manifest.digest,
            features,
            checkpoint_path,
            seed=device.encode(),
            should_stop=should_stop,
            publish=publish,
        )

    def renew(self, private: Private) -> None:
        """Go on with other private rows; what was learned stays."""
        features = _features_of(self._model, private)
        self._private, self._ground = private, self._first_ground(features)
        self._learner.renew(features)

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
                    self._learner.warm_up(job.terms)
                    return Answer(WarmedUp())
                case CompetenceJob():
                    return self._map_competence(job)
                case PredictJob():
                    return self._predict(job)
                case TrainJob():
                    return self._train(job)
        except (FedistillError, MemoryError, OSError) as error:
            log.warning("%s failed: %s", job.work.task.value, error)
            kind = Cause.OUT_OF_MEMORY.value if isinstance(error, MemoryError) else type(error).__name__
            return Answer(WorkFailed(job.work, f"{kind}: {error}"))

    def logits(self, features: Features) -> F32:
        """Return what the model says now, for those who measure it."""
        return self._learner.logits(features)

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
        labels = self._ground_of(offer.slice.public_set).labels(self._learner.logits, offer.slice, offer.temperature)
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
        own = Codes.from_bytes(job.own) if job.own else None
        lesson = self._ground_of(blocks[0].slice.public_set).lesson(self._learner.logits, blocks, own)
        return Answer(self._learner.train(job.consensus_sha256, lesson, blocks[0].temperature, job.terms))


def _features_of(model: LoadedModel, private: Private) -> PrivateFeatures:
    features, classes = private.features(model), len(model.manifest.task.classes)
    training, hold_out = (LabelledRows(features[mask], private.labels[mask], classes) for mask in private.split())
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
