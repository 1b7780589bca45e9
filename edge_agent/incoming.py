"""Messages to a device -> events of its participant, with the bytes that the events name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.eligibility import Profile, objection
from edge_agent.events import ConsensusBlockReceived, Event, OfferReceived, ReceiptReceived
from edge_agent.reservations import Reserved, nothing
from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import ConsensusBlock, Receipt, RoundOffer, ServerState
from fd_protocol.topics import parse


@dataclass(frozen=True, slots=True)
class Entry:
    """An event on its way into the journal, and the bytes that it names."""

    event: Event
    blobs: tuple[bytes, ...] = ()


def read(
    topic: str,
    payload: bytes,
    profile: Profile,
    now_ms: int,
    reserve: Callable[[RoundOffer], Reserved] = nothing,
) -> Entry | None:
    """Return what a message means to the device; None: nothing, as a cleared topic or a server's presence.

    Args:
        topic: of the message.
        payload: its bytes.
        profile: what the device is.
        now_ms: of its life.
        reserve: what it holds against an offer beyond that.

    Raises:
        DecodeError: no message of ours, of another federation, or about other probes than the device has.
    """
    leaf = parse(topic).leaf if payload else ""
    if leaf == "round":
        offer = codec.decode(payload, RoundOffer)
        _check_federation(offer.round, profile)
        reserved = reserve(offer)
        why = objection(offer, profile) or reserved.objection
        return Entry(OfferReceived(offer, now_ms, why, reserved.privacy, reserved.is_paid))
    if leaf == "consensus":
        return _read_block(payload, profile)
    if leaf == "receipt":
        return Entry(ReceiptReceived(codec.decode(payload, Receipt)))
    return None


def is_server_birth(topic: str, payload: bytes) -> bool:
    """Whether a server says that it is there, and hears.

    Raises:
        DecodeError: no message of ours.
    """
    return bool(payload) and parse(topic).leaf == "srv" and codec.decode(payload, ServerState).online


def _read_block(payload: bytes, profile: Profile) -> Entry:
    block = codec.decode(payload, ConsensusBlock)
    _check_federation(block.round, profile)
    if (block.slice.public_set, block.slice.classes) != (profile.public_set, profile.classes):
        raise DecodeError("unknown_public_set", "a consensus on other probes or classes than ours")
    event = ConsensusBlockReceived(block.round, block.consensus_sha256, block.block, block.blocks, sha256(payload))
    return Entry(event, (payload,))


def _check_federation(round_id: RoundId, profile: Profile) -> None:
    if round_id.federation != profile.federation:
        raise DecodeError("foreign_federation", round_id.federation)
