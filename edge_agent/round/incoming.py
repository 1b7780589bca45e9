"""Messages to a device -> events of its participant, with the bytes that the events name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.reservations import Reserved, nothing
from edge_agent.round.eligibility import Profile, objection
from edge_agent.round.events import ConsensusBlockReceived, Event, OfferReceived, ProbesNamed, ReceiptReceived
from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import ConsensusBlock, ProbeNotice, Receipt, Release, RoundOffer, ServerState
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
    probes_of: Callable[[bytes], int],
    now_ms: int,
    *,
    reserve: Callable[[RoundOffer], Reserved] = nothing,
) -> Entry | None:
    """Return what a message means to the device; None: nothing, as a cleared topic or a server's presence.

    Args:
        topic: of the message.
        payload: of the message, empty where its topic was cleared.
        profile: of the device.
        probes_of: tells the number of samples in a public set; 0: the device does not have it.
        now_ms: of the device's life.
        reserve: what it holds against an offer beyond that.

    Raises:
        DecodeError: no message of ours, of another federation, or about other probes than the device has.
    """
    leaf = parse(topic).leaf if payload else ""
    match leaf:
        case "round":
            offer = codec.decode(payload, RoundOffer)
            _check_federation(offer.round, profile)
            reserved = reserve(offer)
            why = objection(offer, profile, probes_of) or reserved.objection
            return Entry(OfferReceived(offer, now_ms, why, reserved.privacy, reserved.is_paid))
        case "consensus":
            return _read_block(payload, profile, probes_of)
        case "receipt":
            return Entry(ReceiptReceived(codec.decode(payload, Receipt)))
        case "probes":
            notice = codec.decode(payload, ProbeNotice)
            return Entry(ProbesNamed(tuple(one.public_set for one in (notice.current, *notice.coming))))
    return None


def is_server_birth(topic: str, payload: bytes) -> bool:
    """Whether a server says that it is there, and hears.

    Raises:
        DecodeError: no message of ours.
    """
    return bool(payload) and parse(topic).leaf == "srv" and codec.decode(payload, ServerState).online


def release_for(topic: str, payload: bytes, profile: Profile) -> Release | None:
    """Return the release that a message tells devices of this family of.

    Raises:
        DecodeError: no message of ours, or one of another family on our topic.
    """
    if not payload or (address := parse(topic)).leaf != "release" or address.argument != profile.family:
        return None
    release = codec.decode(payload, Release)
    if release.family != profile.family:
        raise DecodeError("foreign_family", release.family)
    return release


def _read_block(payload: bytes, profile: Profile, probes_of: Callable[[bytes], int]) -> Entry:
    block = codec.decode(payload, ConsensusBlock)
    _check_federation(block.round, profile)
    if block.slice.classes != profile.classes or not probes_of(block.slice.public_set):
        raise DecodeError("unknown_public_set", "a consensus on other probes or classes than ours")
    event = ConsensusBlockReceived(block.round, block.consensus_sha256, block.block, block.blocks, sha256(payload))
    return Entry(event, (payload,))


def _check_federation(round_id: RoundId, profile: Profile) -> None:
    if round_id.federation != profile.federation:
        raise DecodeError("foreign_federation", round_id.federation)
