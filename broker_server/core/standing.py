"""What each device's word came to in a consensus: its share, and how far it agrees.

    share_k     = mean over probes of w_k(x) / sum_j w_j(x)       w_k(x) is the weight that the rule gave the voice
    agreement_k = share of probes where argmax p_k(x) = argmax z(x)
    canaries_k  = share of the labelled probes where argmax p_k(x) is right
    influence_k = what the consensus would lose on them without the voice (`influence`)

The shares of a round sum to 1. A rule that weighs nobody (a median) gives each voice its own fading weight. All need
the finished consensus, so the voices are heard again: a pass over the store costs time, keeping them memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from broker_server.core.influence import Gathered
from broker_server.rules import Known, Rule, Scale, Voice, claims_of
from fd_protocol.messages import ConsensusBlock
from fd_protocol.payload import decode_body
from fd_protocol.quantisers import I64


@dataclass(frozen=True, slots=True)
class Source:
    """What a voice is made from: enough to hear it again.

    Attributes:
        device: who speaks.
        sha256: of the payload as it was sent.
        labels, map: digests of the blobs of its labels and its competence map; empty = it has no map.
        weight: of the voice.
        is_absent: whether these are its last words, from an earlier round.
    """

    device: str
    sha256: bytes
    labels: bytes
    map: bytes
    weight: int
    is_absent: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """A device's part in a consensus.

    Attributes:
        source: of its voice.
        share, agreement: see above.
        trust: what it has earned by now, its mean over classes, 0..1; None = nothing.
        canaries, influence: see above; None where no label is known, or of too many devices.
    """

    source: Source
    share: float
    agreement: float
    trust: float | None = None
    canaries: float | None = None
    influence: float | None = None


def standings(
    speech: Iterable[tuple[Source, Voice]], rule: Rule, scale: Scale, chosen: I64, known: Known
) -> tuple[Standing, ...]:
    """Return the standing of each voice, without its trust.

    Args:
        speech: the voices as the rule heard them, one at a time.
        rule: that joined them.
        scale: what they weighed.
        chosen: the consensus' likeliest class on each probe, [n].
        known: probes whose labels the server knows.
    """
    stood, gathered, is_weighed = [], Gathered(rule, known), scale.totals > 0
    for source, voice in speech:
        pull, claims = scale.weigh(voice), claims_of(voice)
        share = float((pull[is_weighed] / scale.totals[is_weighed]).mean()) if is_weighed.any() else 0.0
        right = float((claims[known.rows] == known.labels).mean()) if len(known) else None
        stood.append(Standing(source, share, float((claims == chosen).mean()), canaries=right))
        gathered.take(voice)
    influences = gathered.influences()
    return tuple(replace(one, influence=influences.get(one.source.device)) for one in stood)


@dataclass(frozen=True, slots=True)
class Afresh:
    """Voices that are heard anew each time one goes over them."""

    begin: Callable[[], Iterator[Voice]]

    def __iter__(self) -> Iterator[Voice]:
        return self.begin()


def numbers(standings: Sequence[Standing]) -> dict[str, float]:
    """Return what an operator watches over rounds: mean agreement, the largest share, 1 / sum of squared shares."""
    shares = [one.share for one in standings]
    return {
        "agreement": fmean(one.agreement for one in standings),
        "largest_share": max(shares),
        "effective_voices": 1.0 / sum(share * share for share in shares) if any(shares) else 0.0,
    }


def chosen_classes(blocks: Iterable[ConsensusBlock]) -> I64:
    """Return the likeliest class on each probe as a device reads it from the blocks, [n]."""
    codes = (decode_body(one.body, one.codec, one.slice.count, one.slice.classes) for one in blocks)
    chosen: I64 = np.concatenate([one.integers().argmax(axis=1) for one in codes])
    return chosen
