"""What each device's word came to in a consensus: its share, and how far it agrees.

    share_k     = mean over probes of w_k(x) / sum_j w_j(x)       w_k(x) is the weight that the rule gave the voice
    agreement_k = share of probes where argmax p_k(x) = argmax z(x)

The shares of a round sum to 1. A rule that weighs nobody (a median) gives each voice its own fading weight. Both need
the finished consensus, so the voices are heard a second time: a pass over the store costs time, keeping them memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from broker_server.rules import Rule
from broker_server.rules.competence import Competence, claim_weights
from broker_server.rules.per_label import PerLabel, speaking_weights
from broker_server.rules.voice import DISTANCE_CODES, Voice
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
    """A device's part in a consensus; `trust` is what it earned for the next round, its mean over classes, 0..1."""

    source: Source
    share: float
    agreement: float
    trust: float | None = None


@dataclass(slots=True)
class Tally:
    """Keeps, as voices pass, the sum of their weights on each probe; then says what each came to."""

    rule: Rule
    probes: int
    counts: I64 = field(init=False)
    sums: I64 = field(init=False)

    def __post_init__(self) -> None:
        # By distance code: what the competence rule makes of a code is known when all voices have been heard.
        self.counts = np.zeros((DISTANCE_CODES, self.probes), np.int64)
        self.sums = np.zeros((DISTANCE_CODES, self.probes), np.int64)

    def watch(self, voices: Iterable[Voice]) -> Iterator[Voice]:
        for voice in voices:
            cells = voice.distances, np.arange(self.probes)
            self.counts[cells] += 1
            self.sums[cells] += self._claims(voice)
            yield voice

    def standings(
        self, voices: Iterable[tuple[Source, Voice]], chosen: I64, trust: dict[str, float]
    ) -> Iterator[Standing]:
        """Yield the standing of each voice.

        Args:
            voices: the same as before, one at a time.
            chosen: the consensus' likeliest class on each probe, [n].
            trust: that devices earned; one that is not in it earned none.
        """
        factors = self._factors()
        totals = (factors * self.sums).sum(axis=0)
        for source, voice in voices:
            pull = factors[voice.distances, np.arange(self.probes)] * self._claims(voice)
            share = float((pull[totals > 0] / totals[totals > 0]).mean()) if totals.any() else 0.0
            agreement = float((voice.integers.argmax(axis=1) == chosen).mean())
            yield Standing(source, share, agreement, trust.get(voice.device))

    def _claims(self, voice: Voice) -> I64:
        match self.rule:
            case Competence():
                return claim_weights(voice)
            case PerLabel():
                return speaking_weights(voice)
        return np.full(self.probes, voice.weight, np.int64)

    def _factors(self) -> I64:
        if isinstance(self.rule, Competence):
            return self.rule.weights(self.counts)
        return np.ones((DISTANCE_CODES, self.probes), np.int64)


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
