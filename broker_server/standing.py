"""What each device's word came to in a consensus: its share, and how far it agrees.

    share_k     = mean over probes of w_k(x) / sum_j w_j(x)       w_k(x) is the weight that the rule gave the voice
    agreement_k = share of probes where argmax p_k(x) = argmax z(x)

The shares of a round sum to 1. A rule that weighs nobody (a median) gives each voice its own fading weight. Both need
the finished consensus, so the voices are heard again: a pass over the store costs time, keeping them memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import fmean

import numpy as np

from broker_server.rules import Rule, Voice, weigher_of
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
    """A device's part in a consensus; `trust` is what it has earned by now, its mean over classes, 0..1."""

    source: Source
    share: float
    agreement: float
    trust: float | None = None


def standings(
    hear: Callable[[], Iterable[tuple[Source, Voice]]], rule: Rule, chosen: I64, trust: Mapping[str, float]
) -> Iterator[Standing]:
    """Yield the standing of each voice.

    Args:
        hear: begins to hear the voices as the rule heard them, one at a time; it is called more than once.
        rule: that joined them.
        chosen: the consensus' likeliest class on each probe, [n].
        trust: that devices earned; one that is not in it earned none.
    """
    weigh = weigher_of(rule, Afresh(lambda: (voice for _, voice in hear())))
    totals = reduce(np.add, (weigh(voice) for _, voice in hear()))
    for source, voice in hear():
        pull = weigh(voice)
        share = float((pull[totals > 0] / totals[totals > 0]).mean()) if totals.any() else 0.0
        agreement = float((voice.integers.argmax(axis=1) == chosen).mean())
        yield Standing(source, share, agreement, trust.get(voice.device))


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
