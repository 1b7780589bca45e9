"""What happens to a device (events) and what it must bring about (effects).

Both are keyed dataclasses: events go into the journal as CBOR, effects are compared and kept in sets. Arrays are never
among them: an event names bytes by their SHA-256, the bytes lie in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId
from fd_protocol.messages import Kind, PrivacyTerms, Receipt, RoundOffer
from fd_protocol.schema import from_item, keyed, to_item


class Task(str, Enum):
    """What the worker, the process that holds the model, can be asked to do."""

    WARM_UP = "warm-up"
    MAP_COMPETENCE = "map-competence"
    PREDICT = "predict"
    TRAIN = "train"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class Work:
    """Effect: the worker does `task` for `round`. A failed attempt makes the next one a new effect.

    So do other private rows of a map, and of it alone: it says of which version it is to be. Agents that had none wrote
    0 in their journals.
    """

    task: Task = keyed(1)
    round: RoundId = keyed(2)
    attempt: int = keyed(3, default=0)
    private_epoch: int = keyed(4, default=0)


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: the server has receipted the payload. Performed as often as it takes, always with the same bytes."""

    kind: Kind
    round: RoundId
    payload: bytes
    """SHA-256 of the bytes in the store."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """Effect: the broker has the report of `round`."""

    round: RoundId


Effect: TypeAlias = Work | Send | SendReport


@dataclass(frozen=True, slots=True)
class Submission:
    """A round's soft labels in the outbox, by digest.

    Both encodings are made at once, so that a base which the server forgot costs no second look at the codes.
    """

    payload: bytes = keyed(1)
    """The encoded `Contribution` that is sent."""
    codes: bytes = keyed(2)
    """The codes in it: the base of the next difference."""
    full: bytes = keyed(3)
    """The same codes encoded without a base; equals `payload` where no base was used."""


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A round is open. `objection` says why this device will not contribute; empty: it will."""

    offer: RoundOffer = keyed(1)
    at_ms: int = keyed(2)
    objection: str = keyed(3, default="")
    privacy: PrivacyTerms = keyed(4, default=PrivacyTerms())
    """By which this device works in the round: the stricter of the offer's and its own."""
    is_paid: bool = keyed(5, default=False)
    """Under these terms: this period's private training is over, or there is nothing private to train on."""


@dataclass(frozen=True, slots=True)
class ConsensusBlockReceived:
    """Block `block` of `blocks` of a consensus lies in the store, as the message that came."""

    round: RoundId = keyed(1)
    consensus_sha256: bytes = keyed(2)
    block: int = keyed(3)
    blocks: int = keyed(4)
    message: bytes = keyed(5)
    """SHA-256 of the encoded `ConsensusBlock`."""


@dataclass(frozen=True, slots=True)
class ReceiptReceived:
    """The server's word on a payload, or the broker's refusal to carry it."""

    receipt: Receipt = keyed(1)


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """The tail has been fine-tuned on private rows; `is_private`: by a training that was paid for.

    `private_epoch`: version of the rows that it began with; None, in old journals: taken to be the one of that moment.
    """

    is_private: bool = keyed(1, default=False)
    private_epoch: int | None = keyed(2, default=None)


@dataclass(frozen=True, slots=True)
class CompetenceMapped:
    """The encoded `CompetenceMap` lies in the store."""

    public_set: bytes = keyed(1)
    private_epoch: int = keyed(2)
    payload: bytes = keyed(3)


@dataclass(frozen=True, slots=True)
class Predicted:
    """The soft labels of a round lie in the outbox."""

    round: RoundId = keyed(1)
    submission: Submission = keyed(2)


@dataclass(frozen=True, slots=True)
class Trained:
    """Training on a consensus ended; `accepted` false: the guard put the old weights back, for `reason`.

    `is_private`: by privacy terms, which no private row was read for.
    """

    consensus_sha256: bytes = keyed(1)
    accepted: bool = keyed(2)
    reason: str = keyed(3, default="")
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 4})
    is_private: bool = keyed(5, default=False)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Training on changed private rows ended; `accepted` false: the guard put the old weights back."""

    private_epoch: int = keyed(1)
    accepted: bool = keyed(2)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 3})


@dataclass(frozen=True, slots=True)
class ReportSent:
    """The broker has the report."""

    round: RoundId = keyed(1)


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The worker could not do it, or died over it."""

    work: Work = keyed(1)
    reason: str = keyed(2)


@dataclass(frozen=True, slots=True)
class WorkDeferred:
    """The worker has laid a training aside: something keeps the machine from it (`training.conditions`)."""

    work: Work = keyed(1)
    reason: str = keyed(2)


@dataclass(frozen=True, slots=True)
class ConditionsChanged:
    """What keeps this machine from training now, by a word of `training.conditions`; empty: nothing."""

    obstacle: str = keyed(1, default="")


@dataclass(frozen=True, slots=True)
class PrivateDataChanged:
    """The private rows are others than before: an old competence map no longer speaks for them."""

    private_epoch: int = keyed(1)


@dataclass(frozen=True, slots=True)
class BundleChanged:
    """The device runs the bundle of this digest: what was learnt with another one is not known to it."""

    bundle: bytes = keyed(1)


@dataclass(frozen=True, slots=True)
class ProbesNamed:
    """The server says which public sets rounds are about, or may come to be about; digests, the current one first."""

    public_sets: tuple[bytes, ...] = keyed(1)


@dataclass(frozen=True, slots=True)
class ClockTicked:
    """Time has come to `at_ms`; of interest where `participant.wake_at_ms` asked for it.

    `why` says what has taken so long.
    """

    at_ms: int = keyed(1)
    why: str = keyed(2, default="")


Event: TypeAlias = (
    OfferReceived
    | ConsensusBlockReceived
    | ReceiptReceived
    | WarmedUp
    | CompetenceMapped
    | Predicted
    | Trained
    | Refreshed
    | ReportSent
    | WorkFailed
    | WorkDeferred
    | ConditionsChanged
    | PrivateDataChanged
    | BundleChanged
    | ProbesNamed
    | ClockTicked
)

_KINDS: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__args__}


def to_journal(event: Event) -> tuple[str, bytes]:
    """Return the kind and the body under which the journal keeps `event`."""
    return type(event).__name__, cbor.encode(to_item(event))


def from_journal(kind: str, body: bytes) -> Event:
    """Return the event that `to_journal` wrote.

    Raises:
        DecodeError: the journal was written by a newer agent, or it is damaged.
    """
    if kind not in _KINDS:
        raise DecodeError("unsupported", f"event {kind}")
    return from_item(_KINDS[kind], cbor.decode(body))
