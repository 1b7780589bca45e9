"""Work becomes a job: what the worker needs for it, from what the device remembers and the bytes in its journal."""

from __future__ import annotations

from edge_agent.jobs import CompetenceJob, Job, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.round.eligibility import Profile
from edge_agent.round.events import Task, Work
from edge_agent.round.gathering import Consensus
from edge_agent.round.journal import Journal
from edge_agent.round.participant import Participant
from fd_protocol import codec
from fd_protocol.label_set import label_set
from fd_protocol.messages import MAX_PAYLOAD_BYTES, Contribution, RoundOffer, TrainingTerms


def job_of(work: Work, state: Participant, journal: Journal, profile: Profile) -> Job:
    """Return the job that `work` is, for a device in `state`, which has taken an offer."""
    offer, consensus, privacy = state.offer, state.training, state.privacy
    assert offer is not None
    match work.task:
        case Task.WARM_UP:
            return WarmUpJob(work, offer.training, privacy, state.warming_epoch)
        case Task.MAP_COMPETENCE:
            return CompetenceJob(work, work.private_epoch, offer.slice.public_set)
        case Task.PREDICT:
            return PredictJob(work, offer, *_base_for(offer, state, journal), privacy)
        case Task.TRAIN:
            assert consensus is not None
            own = _own_codes(consensus, state, journal, profile)
            return TrainJob(work, consensus.sha256, _messages(consensus, journal), offer.training, own, privacy)
        case Task.REFRESH:
            return _refresh_job(work, offer.training, state, journal)


def _refresh_job(work: Work, terms: TrainingTerms, state: Participant, journal: Journal) -> RefreshJob:
    refreshing, lesson = state.refreshing, state.lesson
    assert refreshing is not None
    if lesson is None:
        return RefreshJob(work, refreshing.private_epoch, terms)
    return RefreshJob(work, refreshing.private_epoch, terms, lesson.sha256, _messages(lesson, journal))


def _messages(consensus: Consensus, journal: Journal) -> tuple[bytes, ...]:
    return tuple(journal.blob(digest) for digest in consensus.messages)


def _base_for(offer: RoundOffer, state: Participant, journal: Journal) -> tuple[bytes, bytes]:
    """Return digest and codes of the base about the offered probes, if it is in the same coding as `offer`."""
    base = state.base_of(offer.slice)
    if base is None:
        return b"", b""
    last = codec.decode(journal.blob(base.payload), Contribution, limit=MAX_PAYLOAD_BYTES)
    if (last.codec, last.top_k) != (offer.codec, offer.top_k):
        return b"", b""
    return base.payload, journal.blob(base.codes)


def _own_codes(consensus: Consensus, state: Participant, journal: Journal, profile: Profile) -> bytes:
    """Return the codes that this device added to a consensus over labels: its target is made by the others."""
    offer, submission = state.offer, state.submission
    if offer is None or offer.slice.public_set != label_set(profile.task):
        return b""
    base = state.base_of(offer.slice)
    if submission is None or base is None or (offer.round, base.payload) != (consensus.round, submission.payload):
        return b""
    return journal.blob(base.codes)
