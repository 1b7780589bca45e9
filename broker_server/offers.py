"""What a round asks for: settings + roster + public set -> RoundOffer, and who may be expected to answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from broker_server.federation import Presence
from broker_server.methods import rule_named
from broker_server.rules import Need
from broker_server.settings import MethodSettings, ProbeSet, Settings
from fd_protocol.identity import RoundId, is_sampled
from fd_protocol.messages import Codec, RoundOffer, Sampling, Slice

COMMON_CODEC = Codec.U8_SQRT
"""Every agent of protocol v1 understands it."""


@dataclass(frozen=True, slots=True)
class Opening:
    """An offer, and the devices online that it invites."""

    offer: RoundOffer
    invited: tuple[str, ...]


def open_round(
    settings: Settings, probes: ProbeSet, online: Mapping[str, Presence], round_id: RoundId, *, seed: bytes, at_ms: int
) -> Opening:
    """Return the offer of a round.

    Args:
        settings: of the federation.
        probes: the public set.
        online: the roster.
        round_id: of the round.
        seed: 16 random bytes; they draw the devices.
        at_ms: UTC milliseconds now.
    """
    sampling = Sampling(seed, settings.rounds.fraction)
    invited = tuple(sorted(device for device in online if is_sampled(device, seed, sampling.fraction)))
    codec, top_k = agreed_codec(settings.method, [online[device].capabilities for device in invited])
    offer = RoundOffer(
        round=round_id,
        remaining_s=settings.rounds.duration_s,
        deadline_utc_s=at_ms // 1000 + settings.rounds.duration_s,
        quorum=settings.rounds.quorum,
        sampling=sampling,
        method=settings.method.name,
        temperature=settings.method.temperature,
        codec=codec,
        top_k=top_k,
        slice=slice_of(probes, settings.rounds.probes, round_id.number),
        task=probes.task,
        byte_budget=settings.rounds.byte_budget,
        training=settings.training,
        shards=settings.rounds.shards,
        competence=Need.COMPETENCE in rule_named(settings.method.name, settings.method.terms).card.needs,
        bundles=tuple(bytes.fromhex(digest) for digest in settings.bundles),
    )
    return Opening(offer, invited)


def agreed_codec(method: MethodSettings, capabilities: Collection[tuple[str, ...]]) -> tuple[Codec, int]:
    """Return the (codec, top_k) of the settings where all devices understand that codec, else the common one."""
    if all(method.codec.value in understood for understood in capabilities):
        return method.codec, method.top_k
    return COMMON_CODEC, 0


def slice_of(probes: ProbeSet, wanted: int, number: int) -> Slice:
    """Return the probes of round `number`: whole slices in turn, from the start again when the next would not fit."""
    count = wanted or probes.count
    turn = (number - 1) % (probes.count // count)
    return Slice(probes.public_set, turn * count, count, probes.classes)
