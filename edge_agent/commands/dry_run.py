"""Command `dry-run`: take part in a round that nobody has opened; say how large and how long, and send nothing.

The worker labels and encodes as for the last offer, or for the whole public set where there has been none. What it made
is measured and forgotten: it never reaches the journal, the outbox or the wire. Sizes tell no more than the
contribution of a real round would; under privacy terms it is made from weights that were paid for, and a failure is
told in the words that those terms leave (`privacy.saying`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge_agent.commands.body import Body
from edge_agent.commands.doing import CommandFailedError, Doing, Done, Failed, Progress
from edge_agent.commands.machine import ERROR
from edge_agent.jobs import Answer, PredictJob
from edge_agent.privacy.saying import public_reason
from edge_agent.round.eligibility import Profile, objection
from edge_agent.round.events import Predicted, Task, Work, WorkFailed
from edge_agent.round.participant import Participant
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import (
    MAX_CELLS,
    MAX_PART_BYTES,
    MAX_PAYLOAD_BYTES,
    Codec,
    Command,
    RoundOffer,
    Sampling,
    Slice,
    TrainingTerms,
)

_PATIENCE_S = 3600.0
"""The worker may be in the middle of a training."""


def dry_run_handler(body: Body, monotonic_s: Callable[[], float]) -> Callable[..., Doing]:
    """Return the handler. After a restart it plays the round once more."""

    def handle(_command: Command, *, is_resumed: bool) -> Doing:  # noqa: ARG001 - nothing of it is left behind
        return _DryRun(body, monotonic_s)

    return handle


def pretend_offer(profile: Profile, state: Participant) -> RoundOffer:
    """Return what a round would ask for. Its epoch is 0, which no federation has: nothing takes it for a real one."""
    round_id = RoundId(profile.federation, 0, 0)
    if state.offer is not None:
        return replace(state.offer, round=round_id)
    count = min(profile.probes, MAX_CELLS // profile.classes)
    return RoundOffer(
        round=round_id,
        remaining_s=3600,
        deadline_utc_s=0,
        quorum=1,
        sampling=Sampling(bytes(16)),
        method="competence",
        temperature=2.0,
        codec=Codec.U8_SQRT,
        slice=Slice(profile.public_set, 0, count, profile.classes),
        task=profile.task,
        byte_budget=MAX_PAYLOAD_BYTES,
        training=TrainingTerms(),
    )


class _DryRun:
    def __init__(self, body: Body, monotonic_s: Callable[[], float]) -> None:
        self._body, self._monotonic_s = body, monotonic_s
        self._offer = pretend_offer(body.profile, body.state)
        if objection(self._offer, body.profile) in ("foreign_task", "unknown_public_set", "slice_out_of_range"):
            # Of probes that the device does not have nothing can be said; it labels what it has.
            self._offer = pretend_offer(body.profile, Participant())
        self._work = Work(Task.PREDICT, self._offer.round)
        self._reserved = body.reserved(self._offer)
        self._begin_s = monotonic_s()
        self._progress: Progress | None = None
        body.submit(PredictJob(self._work, self._offer, privacy=self._reserved.privacy))

    def poll(self) -> Progress | None:
        if self._progress is None and self._monotonic_s() - self._begin_s > _PATIENCE_S:
            raise CommandFailedError(f"{ERROR}: the worker has not answered for {_PATIENCE_S:.0f} s")
        return self._progress

    def answered(self, answer: Answer) -> bool:
        match answer.event:
            case Predicted(round_id, submission) if round_id == self._work.round:
                payload = next(blob for blob in answer.blobs if sha256(blob) == submission.payload)
                self._progress = Done(self._told(len(payload)))
                return True
            case WorkFailed(work, reason) if work == self._work:
                word = public_reason(reason) if self._body.is_under_terms else reason.partition(":")[0]
                self._progress = Failed(f"{ERROR}: {word}")
                return True
        return False

    def _told(self, payload_bytes: int) -> dict[str, str]:
        offer, state = self._offer, self._body.state
        is_real = state.offer is not None and state.offer.slice == offer.slice
        return {
            "payload_bytes": str(payload_bytes),
            "parts": str(-(-payload_bytes // MAX_PART_BYTES)),
            "budget_bytes": str(offer.byte_budget),
            "probes": str(offer.slice.count),
            "classes": str(offer.slice.classes),
            "codec": offer.codec.value,
            "temperature": f"{offer.temperature:g}",
            "answered_after_s": f"{self._monotonic_s() - self._begin_s:.2f}",
            "warmed_up": "yes" if state.is_warm else "no",
            "as_offered": "yes" if is_real else "no",
            "objection": state.objection or self._reserved.objection,
        }
