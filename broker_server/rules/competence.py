"""Competence-weighted consensus: on each probe, listen to those whose private data lie near it.

    z(x) = sum_k w_k(x) t_k p_k(x) / sum_k w_k(x) t_k        w_k(x) = min(1, exp(-b (d_k(x) - d_(m)(x))))

d_k(x) is the distance of the probe to device k's nearest cluster, d_(m)(x) the m-th smallest of all devices, t_k the
trust that a claim of this class has earned on canaries, this round's among them (`canary_trust`). Density weights after
EdgeFD (Mujtaba et al. 2025) and certainty weights after FedAUX (Sattler et al. 2021); clip and trust are ours:
docs/adr/0004-methods.md.

The clip is what keeps one device that claims to stand everywhere from owning every probe: m - 1 such devices gain no
more weight than an honest one. Without canaries (t = 1) the rule resists m - 1 liars at best; an untrusted fleet must
have canaries or use the mean.

Distances have four values, so the sums are kept per value and weighted when d_(m) is known: voices are heard once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from broker_server.rules.canary_trust import earned
from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import Known
from broker_server.rules.voice import (
    DISTANCE_CODES,
    WEIGHT_ONE,
    Voice,
    claims_of,
    heard,
    normalise,
    to_weights,
)
from fd_protocol.bodies import U8
from fd_protocol.competence import distances_of
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32


@dataclass(frozen=True, slots=True)
class Competence:
    """`sharpness` is b, `clip_rank` is m; with fewer than m voices the farthest of them clips."""

    sharpness: float
    clip_rank: int

    card: ClassVar[Card] = Card(
        name="competence",
        formula="sum w_k t_k p_k / sum w_k t_k, w_k by how near k's data lie, t_k by canaries",
        source="docs/adr/0004-methods.md, after Mujtaba et al. 2025 (EdgeFD), Sattler et al. 2021 (FedAUX)",
        fails="without canaries from clip_rank liars on; where probes lie far from all private data",
        needs=frozenset({Need.PUBLIC_SET, Need.COMPETENCE}),
        uses=frozenset({Need.CANARIES, Need.MEMORY}),
        promises=frozenset(Promise),
    )

    def consensus(self, voices: Iterable[Voice]) -> F32:
        sums: I64 | None = None
        counts: I64 | None = None
        for voice in heard(voices):
            if sums is None or counts is None:
                sums = np.zeros((DISTANCE_CODES, *voice.integers.shape), np.int64)
                counts = np.zeros((DISTANCE_CODES, len(voice.integers)), np.int64)
            cells = voice.distances, np.arange(len(voice.distances))
            sums[cells] += claim_weights(voice)[:, None] * voice.integers
            counts[cells] += 1
        assert sums is not None
        assert counts is not None
        return normalise((self.weights_by_code(counts)[:, :, None] * sums).sum(axis=0))

    def weights(self, voices: Iterable[Voice]) -> Iterator[I64]:
        by_code = self.weights_by_code(code_counts(voice.distances for voice in voices))
        for voice in voices:
            yield by_code[voice.distances, np.arange(len(voice.distances))] * claim_weights(voice)

    def judge(self, voices: Iterable[Voice], known: Known) -> Mapping[str, I64]:
        if not len(known):
            return {}
        by_code = self.weights_by_code(code_counts(voice.distances[known.rows] for voice in voices)) / WEIGHT_ONE
        return {
            voice.device: earned(
                claims_of(voice)[known.rows],
                known.labels,
                by_code[voice.distances[known.rows], np.arange(len(known))],
                voice.trust,
            )
            for voice in voices
        }

    def weights_by_code(self, counts: I64) -> I64:
        """Return w for each distance code on each probe, int64 [codes, n].

        Args:
            counts: how many devices have each code on each probe, [codes, n].
        """
        rank = np.minimum(self.clip_rank, counts.sum(axis=0))
        clip = (counts.cumsum(axis=0) >= rank).argmax(axis=0)
        return self._table()[:, clip]

    def _table(self) -> I64:
        """The weight w of a device with code i where the m-th smallest code is j, [codes, codes]."""
        distances = distances_of(np.arange(DISTANCE_CODES, dtype=np.uint8)).astype(np.float64)
        excess = np.maximum(distances[:, None] - distances[None, :], 0.0)
        return to_weights(np.exp(-self.sharpness * excess))


def claim_weights(voice: Voice) -> I64:
    """Return t of the class that each row claims, faded with the voice: int64 [n], at least 1."""
    weights: I64 = np.maximum(1, voice.trust[claims_of(voice)] * voice.weight // WEIGHT_ONE)
    return weights


def code_counts(distances: Iterable[U8]) -> I64:
    """Return how many devices have each code on each probe, int64 [codes, n]."""
    counts: I64 | None = None
    for codes in distances:
        counts = np.zeros((DISTANCE_CODES, len(codes)), np.int64) if counts is None else counts
        counts[codes, np.arange(len(codes))] += 1
    assert counts is not None
    return counts
