"""Small values for the tests of a device."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.round.events import (
    ConsensusBlockReceived,
    OfferReceived,
    Predicted,
    ReceiptReceived,
    Submission,
    Trained,
)
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import (
    Codec,
    Kind,
    PrivacyTerms,
    Receipt,
    RoundOffer,
    Sampling,
    Slice,
    Status,
    TrainingTerms,
)

FEDERATION = "test"  # also that of the access rules in tests.support.brokers
PUBLIC_SET = sha256(b"public set")
TASK = sha256(b"task")


def round_id(number: int = 1, epoch: int = 7) -> RoundId:
    return RoundId(FEDERATION, epoch, number)


def offer(number: int = 1, epoch: int = 7, **changes) -> RoundOffer:
    base = RoundOffer(
        round=round_id(number, epoch),
        remaining_s=60,
        deadline_utc_s=1_800_000_000,
        quorum=1,
        sampling=Sampling(b"s" * 16),
        method="competence",
        temperature=2.0,
        codec=Codec.U8_SQRT,
        slice=Slice(PUBLIC_SET, 0, 8, 3),
        task=TASK,
        byte_budget=100_000,
        training=TrainingTerms(),
    )
    return replace(base, **changes)


def offered(
    number: int = 1,
    epoch: int = 7,
    at_ms: int = 0,
    objection: str = "",
    *,
    own: PrivacyTerms = PrivacyTerms(),  # noqa: B008 - frozen
    is_paid: bool = False,
    **changes,
) -> OfferReceived:
    """An offer, and the terms `own` by which the device works in its round."""
    return OfferReceived(offer(number, epoch, **changes), at_ms, objection, own, is_paid)


def submission(name: str, *, with_base: bool = False) -> Submission:
    full = sha256(f"{name} full".encode())
    return Submission(sha256(name.encode()) if with_base else full, sha256(f"{name} codes".encode()), full)


def predicted(number: int = 1, epoch: int = 7, *, with_base: bool = False) -> Predicted:
    return Predicted(round_id(number, epoch), submission(f"{epoch}/{number}", with_base=with_base))


def receipt(
    payload: bytes,
    number: int = 1,
    epoch: int = 7,
    status: Status = Status.STORED,
    reason: str = "",
    kind: Kind = Kind.CONTRIBUTION,
    missing: tuple[int, ...] = (),
) -> ReceiptReceived:
    return ReceiptReceived(Receipt(round_id(number, epoch), kind, payload, status, reason, missing))


def consensus_digest(number: int, epoch: int = 7) -> bytes:
    return sha256(f"consensus {epoch}/{number}".encode())


def block(number: int = 1, epoch: int = 7, index: int = 0, blocks: int = 1) -> ConsensusBlockReceived:
    message = sha256(f"block {epoch}/{number}/{index}".encode())
    return ConsensusBlockReceived(round_id(number, epoch), consensus_digest(number, epoch), index, blocks, message)


def trained(number: int = 1, epoch: int = 7) -> Trained:
    return Trained(consensus_digest(number, epoch), accepted=True)
