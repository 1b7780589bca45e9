"""May this payload count? Checks everything before anything is stored; refuses with a reason that stays the same.

    foreign_round        of another federation, or of a round that was never offered
    foreign_epoch        of an epoch that has ended
    round_closed         late, by more than a round, or where absent devices do not count: it could not be heard
    not_a_member         the round does not invite this device
    over_budget          more bytes than the offer allows
    second_payload       the device has contributed to this round already, with other bytes; or has sent MAX_MAPS maps
    foreign_public_set   speaks of other probes
    wrong_slice          of this public set, but not of the offered probes; or a map that does not cover the set
    wrong_temperature    not softened as offered
    wrong_codec          not encoded as offered
    unknown_base         a difference to a payload that is not in the store: send it in full

and the reasons of `DecodeError`: malformed, oversized, foreign_kind, unsupported, invalid, wrong_digest,
malformed_body, wrong_length, invalid_rows; and rate_limited, of `rate`.

A payload of the round that has just ended is admitted late, by that round's offer: it does not count in that round, and
from the next one on it is the device's last word, faded by its age as that of any absent device (`voices`).

What is deliberately absent: outliers. Honest minority experts look like them; whether to believe a voice is for the
rule and its canaries.
"""

from __future__ import annotations

from collections.abc import Callable

from broker_server.core.federation import Federation, late_offer
from broker_server.core.labels import StoredLabels
from fd_protocol import codec
from fd_protocol.bodies import U8
from fd_protocol.competence import decode_map
from fd_protocol.errors import FedistillError
from fd_protocol.messages import MAX_PAYLOAD_BYTES, CompetenceMap, Contribution, Kind, Part, RoundOffer
from fd_protocol.payload import Codes, decode_body

MAX_MAPS = 16
"""Maps of a device that are taken from one offer to the next, whichever rounds they name.

A device makes another one where its private rows have changed, or where a new life knows nothing of the last: a few in
a round. It takes any refusal for the last word on its map, so an honest one must never come this far.
"""

Bases = Callable[[bytes], Codes | None]
"""Finds the codes of an accepted payload of the same device by the payload's SHA-256."""


class RefusedError(FedistillError):
    """A well-formed payload must not count; `reason` is one of the words above."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


def check_part(part: Part, device: str, federation: str, state: Federation, *, hears_late: bool) -> RoundOffer:
    """Return the offer that a payload answers; refuse what need not be read to its end.

    Args:
        part: of the payload.
        device: that sent it.
        federation: ours.
        state: of it.
        hears_late: whether the last words of absent devices count.

    Raises:
        RefusedError: foreign_round, foreign_epoch, round_closed, not_a_member or over_budget.
    """
    if part.round.federation != federation:
        raise RefusedError("foreign_round", f"of federation {part.round.federation}")
    if part.round.epoch != state.epoch:
        raise RefusedError("foreign_epoch")
    if part.round.number > state.number or state.round is None:
        raise RefusedError("foreign_round", f"number {part.round.number} of {state.number}")
    offer = state.round.offer if part.kind is Kind.COMPETENCE else _offer_of(part, state, hears_late=hears_late)
    if part.total_bytes > offer.byte_budget:
        raise RefusedError("over_budget", f"{part.total_bytes} of {offer.byte_budget} bytes")
    if part.kind is Kind.CONTRIBUTION and not offer.invites(device):
        raise RefusedError("not_a_member")
    return offer


def _offer_of(part: Part, state: Federation, *, hears_late: bool) -> RoundOffer:
    assert state.round is not None  # its caller has seen to that
    if state.round.is_open and part.round == state.round.id:
        return state.round.offer
    late = late_offer(state) if hears_late else None
    if late is None or part.round != late.round:
        raise RefusedError("round_closed")
    return late


def admit_contribution(payload: bytes, offer: RoundOffer, base_of: Bases) -> StoredLabels:
    """Return the labels in `payload`, exactly what `offer` asked for.

    Raises:
        RefusedError: foreign_public_set, wrong_slice, wrong_temperature, wrong_codec or unknown_base.
        DecodeError: it is not a contribution, or its body does not hold the offered rows.
    """
    contribution = codec.decode(payload, Contribution, limit=MAX_PAYLOAD_BYTES)
    if contribution.slice.public_set != offer.slice.public_set:
        raise RefusedError("foreign_public_set")
    if contribution.slice != offer.slice:
        raise RefusedError("wrong_slice")
    if contribution.temperature != offer.temperature:
        raise RefusedError("wrong_temperature", f"{contribution.temperature} for {offer.temperature}")
    if (contribution.codec, contribution.top_k) != (offer.codec, offer.top_k):
        raise RefusedError("wrong_codec", f"{contribution.codec.value} for {offer.codec.value}")
    base = base_of(contribution.base) if contribution.base else None
    if contribution.base and base is None:
        raise RefusedError("unknown_base")
    count, classes = offer.slice.count, offer.slice.classes
    codes = decode_body(contribution.body, offer.codec, count, classes, offer.top_k, base=base)
    return StoredLabels.of(contribution, codes)


def admit_competence(payload: bytes, public_set: bytes, probes: int) -> CompetenceMap:
    """Return the map in `payload`, of all `probes` of `public_set`.

    Raises:
        RefusedError: foreign_public_set or wrong_slice.
        DecodeError: it is not a map, or its body does not hold that many distances.
    """
    competence = codec.decode(payload, CompetenceMap, limit=MAX_PAYLOAD_BYTES)
    if competence.public_set != public_set:
        raise RefusedError("foreign_public_set")
    if competence.count != probes:
        raise RefusedError("wrong_slice", f"{competence.count} of {probes} probes")
    distances_in(competence)
    return competence


def distances_in(competence: CompetenceMap) -> U8:
    """Return the distance codes of every probe, uint8 [probes].

    Raises:
        DecodeError: malformed_body or wrong_length.
    """
    return decode_map(competence.body, competence.count)
