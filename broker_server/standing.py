"""What each device's word came to in a consensus: its share, and how far it agrees.

    share_k     = mean over probes of w_k(x) / sum_j w_j(x)       w_k(x) is the weight that the rule gave the voice
    agreement_k = share of probes where argmax p_k(x) = argmax z(x)

The shares of a round sum to 1. A rule that weighs nobody (a median) gives each voice its own fading weight. Both need
the finished consensus, so the voices are heard again: a pass over the store costs time, keeping them memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

import numpy as np

from broker_server.rules import Rule, Weighing
from broker_server.rules.voice import F64, Voice
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


Speech: TypeAlias = "Iterable[tuple[Source, Voice]]"
"""Voices with their sources; here always something that can be gone over again."""


@dataclass(frozen=True, slots=True)
class Voices:
    """The voices of a speech, without their sources."""

    speech: Speech

    def __iter__(self) -> Iterator[Voice]:
        return (voice for _, voice in self.speech)


@dataclass(frozen=True, slots=True)
class Standing:
    """A device's part in a consensus; `trust` is what it earned for the next round, its mean over classes, 0..1."""

    source: Source
    share: float
    agreement: float
    trust: float | None = None


def standings(rule: Rule, speech: Speech, chosen: I64, trust: Mapping[str, float]) -> Iterator[Standing]:
    """Yield the standing of each voice.

    Args:
        rule: that joined them.
        speech: the voices, with the trust with which they were heard; gone over several times, one voice at a time.
        chosen: the consensus' likeliest class on each probe, [n].
        trust: that devices earned; one that is not in it earned none.
    """
    voices = Voices(speech)
    totals = sum(_weights(rule, voices), start=np.zeros(len(chosen)))
    heard = totals > 0
    for (source, voice), weights in zip(speech, _weights(rule, voices), strict=True):
        share = float((weights[heard] / totals[heard]).mean()) if heard.any() else 0.0
        agreement = float((voice.integers.argmax(axis=1) == chosen).mean())
        yield Standing(source, share, agreement, trust.get(voice.device))


def _weights(rule: Rule, voices: Voices) -> Iterator[F64]:
    """Yield what the rows of each voice weigh, [n]; where a rule weighs nobody, each voice has its fading weight."""
    if isinstance(rule, Weighing):
        return (weights.astype(np.float64) for weights in rule.weights(voices))
    return (np.full(len(voice.distances), float(voice.weight)) for voice in voices)


def chosen_classes(blocks: Iterable[ConsensusBlock]) -> I64:
    """Return the likeliest class on each probe as a device reads it from the blocks, [n]."""
    codes = (decode_body(one.body, one.codec, one.slice.count, one.slice.classes) for one in blocks)
    chosen: I64 = np.concatenate([one.integers().argmax(axis=1) for one in codes])
    return chosen


def numbers(standings: Sequence[Standing]) -> dict[str, float]:
    """Return what an operator watches over rounds: mean agreement, the largest share, 1 / sum of squared shares."""
    shares = [one.share for one in standings]
    return {
        "agreement": fmean(one.agreement for one in standings),
        "largest_share": max(shares),
        "effective_voices": 1.0 / sum(share * share for share in shares) if any(shares) else 0.0,
    }
