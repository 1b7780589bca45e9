"""What crosses the pipe between supervisor and worker: jobs one way, answers the other, as length-prefixed CBOR.

The supervisor speaks to the network and the store, the worker holds the model; neither needs the other's libraries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, TypeAlias

from edge_agent.round.events import Event, Work, from_journal, to_journal
from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.messages import PrivacyTerms, RoundOffer, TrainingTerms
from fd_protocol.schema import from_item, keyed, to_item

MAX_FRAME_BYTES = 64 << 20
LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class WarmUpJob:
    """Fine-tune on private rows: once in the life of a bundle, under privacy terms once in a privacy period.

    `private_epoch`: version of these rows when it was first asked for; the answer says it again.
    """

    work: Work = keyed(1)
    terms: TrainingTerms = keyed(2)
    privacy: PrivacyTerms = keyed(10, default=PrivacyTerms())
    private_epoch: int | None = keyed(3, default=None)


@dataclass(frozen=True, slots=True)
class CompetenceJob:
    """Map how far every probe of a public set is from the private rows."""

    work: Work = keyed(1)
    private_epoch: int = keyed(2)
    public_set: bytes = keyed(3)


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Label the offered slice; where `base_codes` is given, also as a difference to the payload `base`."""

    work: Work = keyed(1)
    offer: RoundOffer = keyed(2)
    base: bytes = keyed(3, default=b"")
    base_codes: bytes = keyed(4, default=b"")
    privacy: PrivacyTerms = keyed(10, default=PrivacyTerms())


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Learn from private rows and the consensus in `messages`, the encoded `ConsensusBlock`s in order.

    `own`: codes of what this device itself contributed to it, where that is of interest; empty = unknown.
    """

    work: Work = keyed(1)
    consensus_sha256: bytes = keyed(2)
    messages: tuple[bytes, ...] = keyed(3)
    terms: TrainingTerms = keyed(4)
    own: bytes = keyed(5, default=b"")
    privacy: PrivacyTerms = keyed(10, default=PrivacyTerms())


@dataclass(frozen=True, slots=True)
class RefreshJob:
    """Learn from private rows that have changed, jointly with the last consensus in `messages`, if there was one."""

    work: Work = keyed(1)
    private_epoch: int = keyed(2)
    terms: TrainingTerms = keyed(3)
    consensus_sha256: bytes = keyed(4, default=b"")
    messages: tuple[bytes, ...] = keyed(5, default=())


Job: TypeAlias = WarmUpJob | CompetenceJob | PredictJob | TrainJob | RefreshJob
_JOBS: dict[int, type[Job]] = {1: WarmUpJob, 2: CompetenceJob, 3: PredictJob, 4: TrainJob, 5: RefreshJob}
_NUMBERS = {cls: number for number, cls in _JOBS.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a job: the event, and the bytes that it names by digest."""

    event: Event
    blobs: tuple[bytes, ...] = ()


def encode_job(job: Job) -> bytes:
    return cbor.encode({0: _NUMBERS[type(job)], **to_item(job)})


def decode_job(data: bytes) -> Job:
    """Raises: DecodeError: not a job."""
    item = cbor.decode(data)
    if not isinstance(item, dict) or not isinstance(number := item.get(0), int) or number not in _JOBS:
        raise DecodeError("malformed", "not a job")
    return from_item(_JOBS[number], item)


def encode_answer(answer: Answer) -> bytes:
    return cbor.encode([*to_journal(answer.event), list(answer.blobs)])


def decode_answer(data: bytes) -> Answer:
    """Raises: DecodeError: not an answer."""
    match cbor.decode(data):
        case [str(kind), bytes(body), list(blobs)]:
            return Answer(from_journal(kind, body), tuple(blob for blob in blobs if isinstance(blob, bytes)))
        case _:
            raise DecodeError("malformed", "not an answer")


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """Return the next frame; None: the other side is gone, perhaps in the middle of one.

    Raises:
        DecodeError: a length beyond reason; the other side is not one of ours.
    """
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise DecodeError("oversized", f"a frame of {length} bytes")
    data = pipe.read(length)
    return data if len(data) == length else None
