"""What a round asks for: settings + roster + public set -> RoundOffer, and who may be expected to answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from broker_server.core.events import Portion
from broker_server.core.federation import Presence
from broker_server.core.portions import choose, grid, standing
from broker_server.settings import MethodSettings, ProbeSet, RoundSettings, Settings
from fd_protocol.identity import RoundId, is_sampled, sha256
from fd_protocol.messages import MAX_NAMED, Codec, RoundOffer, Sampling, Slice

COMMON_CODEC = Codec.U8_SQRT
"""Every agent of protocol v1 understands it."""
_DRAWS = 64
_NOBODY = 2.0**-33
"""Below the smallest draw but 0: what an offer says that is for nobody, as an empty list of names is for all."""


@dataclass(frozen=True, slots=True)
class Opening:
    """An offer, and the devices online that it invites."""

    offer: RoundOffer
    invited: tuple[str, ...]


def open_round(
    settings: Settings,
    probes: ProbeSet,
    online: Mapping[str, Presence],
    round_id: RoundId,
    *,
    seed: bytes,
    at_ms: int,
    is_warm_up: bool = False,
    portions: Sequence[Portion] = (),
    named: Collection[str] | None = None,
    is_trial: bool = False,
) -> Opening:
    """Return the offer of a round.

    Args:
        settings: of the federation.
        probes: the public set.
        online: the roster.
        round_id: of the round.
        seed: 16 random bytes; they draw the devices.
        at_ms: UTC milliseconds now.
        is_warm_up: whether devices get the time of a warm-up round.
        portions: of the last consensus.
        named: devices that the round is for; None = all.
        is_trial: whether the public set is another than devices have as a rule; those that do not say are not awaited.
    """
    names = _drawn(named, seed) if named is not None else ()
    able = {name for name, one in online.items() if one.has(probes.public_set, is_current=not is_trial)}
    asked = able if named is None else able & set(names)
    sampling = draw(seed, asked, settings.rounds) if named is None or names else Sampling(seed, _NOBODY)
    invited = _sampled(asked, sampling)
    duration_s = settings.rounds.warm_up_s if is_warm_up else settings.rounds.duration_s
    codec, top_k = agreed_codec(settings.method, [online[device].capabilities for device in invited])
    offer = RoundOffer(
        round=round_id,
        remaining_s=duration_s,
        deadline_utc_s=at_ms // 1000 + duration_s,
        quorum=settings.rounds.quorum,
        sampling=sampling,
        method=settings.method.name,
        temperature=settings.method.temperature,
        codec=codec,
        top_k=top_k,
        slice=slice_of(probes, settings, round_id.number, portions),
        task=probes.task,
        byte_budget=settings.rounds.byte_budget,
        training=settings.training,
        shards=settings.rounds.shards,
        competence=settings.asks_for_maps,
        bundles=tuple(bytes.fromhex(digest) for digest in settings.bundles),
        devices=names,
        privacy=settings.privacy,
    )
    return Opening(offer, invited)


def agreed_codec(method: MethodSettings, capabilities: Collection[tuple[str, ...]]) -> tuple[Codec, int]:
    """Return the (codec, top_k) of the settings where all devices understand that codec, else the common one."""
    if all(method.codec.value in understood for understood in capabilities):
        return method.codec, method.top_k
    return COMMON_CODEC, 0


def draw(seed: bytes, online: Collection[str], rounds: RoundSettings) -> Sampling:
    """Return a sampling that invites as many of the devices online as the settings say, on average.

    A draw of fewer than the quorum could not end well: then the next seed is drawn from the last one, a few times.
    """
    fraction = min(1.0, rounds.invite / max(1, len(online))) if rounds.invite else rounds.fraction
    for _ in range(_DRAWS):
        sampling = Sampling(seed, fraction)
        if len(_sampled(online, sampling)) >= min(rounds.quorum, len(online)):
            break
        seed = sha256(seed)[: len(seed)]
    return sampling


def _drawn(named: Collection[str], seed: bytes) -> tuple[str, ...]:
    """Return as many of the names as an offer may have, drawn anew with each seed where they are more."""
    return tuple(sorted(sorted(named, key=lambda device: sha256(seed + device.encode()))[:MAX_NAMED]))


def _sampled(online: Collection[str], sampling: Sampling) -> tuple[str, ...]:
    return tuple(sorted(device for device in online if is_sampled(device, sampling.seed, sampling.fraction)))


def slice_of(probes: ProbeSet, settings: Settings, number: int, portions: Sequence[Portion] = ()) -> Slice:
    """Return the probes of round `number`: a whole slice in turn or in need; what fills no slice is never asked for.

    A slice stays for `rounds.slice_rounds` rounds, so that devices can send differences.
    """
    rounds = settings.rounds
    slices = grid(probes.whole, rounds.probes or probes.count)
    if rounds.choose == "turn":
        return slices[(number - 1) // rounds.slice_rounds % len(slices)]
    held = standing(portions, slices, settings.method.temperature)
    return choose(slices, held, number, stay=rounds.slice_rounds, lease=rounds.lease_rounds)
