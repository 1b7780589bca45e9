"""A device that takes part and lies: it speaks the protocol, and answers falsely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.jobs import Answer, Job, PredictJob, TrainJob
from edge_agent.round.events import CompetenceMapped, Predicted, Submission, Trained
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PAYLOAD_BYTES, CompetenceMap, Contribution
from fd_protocol.payload import Codes, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fleet_sim.attacks.overclaim import claim_everything
from fleet_sim.attacks.ring import Ring


@dataclass(frozen=True, slots=True)
class Liar:
    """Stands in the place of `WorkerCore.handle`.

    Attributes:
        honest: does the jobs; only its answers are changed.
        ring: what the attackers are after, and what they know together.
    """

    honest: Callable[[Job], Answer]
    ring: Ring

    def handle(self, job: Job) -> Answer:
        answer = self.honest(job)
        match job, answer.event:
            case _, CompetenceMapped() if self.ring.terms.claims == "everything":
                return _overclaimed(answer, answer.event)
            case PredictJob(), Predicted():
                return self._answer_falsely(job, answer)
            case TrainJob(), Trained():
                self.ring.hear(job.messages)
        return answer

    def _answer_falsely(self, job: PredictJob, answer: Answer) -> Answer:
        offer, (_, stored, *_) = job.offer, answer.blobs
        own = Codes.from_bytes(stored).probabilities()
        lie = self.ring.attack.answer(self.ring.knowledge(own, offer))
        if lie is own:  # decoded and encoded again, it would not be quite the same
            return answer
        codes = quantise(SoftLabels(lie, offer.temperature), offer.codec, offer.top_k)
        body = encode_body(codes)
        payload = codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, body, top_k=offer.top_k))
        submission = Submission(sha256(payload), sha256(codes.to_bytes()), full=sha256(payload))
        return Answer(Predicted(offer.round, submission), (payload, codes.to_bytes()))


def _overclaimed(answer: Answer, event: CompetenceMapped) -> Answer:
    honest = codec.decode(answer.blobs[0], CompetenceMap, limit=MAX_PAYLOAD_BYTES)
    payload = codec.encode(claim_everything(honest))
    return Answer(replace(event, payload=sha256(payload)), (payload,))
