"""Competence-weighted consensus: on each probe, listen to those whose private data lie near it.

    z(x) = sum_k w_k(x) t_k p_k(x) / sum_k w_k(x) t_k        w_k(x) = min(1, exp(-b (d_k(x) - d_(m)(x))))

d_k(x) is the distance of the probe to device k's nearest cluster, t_k the trust that a claim of this class has earned
on canaries, this round's among them (`canary_trust`), and d_(m)(x) the distance within which m of K parts of all trust
lie: where all are trusted alike, the m-th smallest of K. Density weights after EdgeFD (Mujtaba et al. 2025) and
certainty weights after FedAUX (Sattler et al. 2021); clip and trust are ours: docs/adr/0004-methods.md, 0014-rules.md.

The clip is what keeps one device that claims to stand everywhere from owning every probe: m - 1 such devices gain no
more weight than an honest one. Those that the canaries caught do not count towards it, or a crowd of them would push
the honest down. Without canaries (t = 1) the rule resists m - 1 liars at best; an untrusted fleet must have canaries or
use the mean.

Distances have four values, so the sums are kept per value and weighted when d_(m) is known: voices are heard once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from broker_server.rules.canary_trust import earned
from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.rule import Known, Scale, Weigher
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
        labels, _ = self.scaled(voices)
        return labels

    def scaled(self, voices: Iterable[Voice]) -> tuple[F32, Scale]:
        sums: I64 | None = None
        for voice in heard(voices):
            if sums is None:
                sums = np.zeros((DISTANCE_CODES, *voice.integers.shape), np.int64)
                standing = _Standing(len(voice.integers))
            weights = claim_weights(voice)
            sums[standing.add(voice.distances, weights)] += weights[:, None] * voice.integers
        assert sums is not None
        by_code = self._by_code(standing)
        scale = Scale(_weigher(by_code), (by_code * standing.trust).sum(axis=0))
        return normalise((by_code[:, :, None] * sums).sum(axis=0)), scale

    def weigher(self, voices: Iterable[Voice]) -> Weigher:
        return _weigher(self._by_code(_Standing.of(voices)))

    def judge(self, voices: Iterable[Voice], known: Known) -> Mapping[str, I64]:
        if not len(known):
            return {}
        # What is kept of each voice, a few bytes a canary, is cheaper than to read all of them again.
        standing, heard_on = _Standing(len(known)), []
        for voice in voices:
            distances = voice.distances[known.rows]
            standing.add(distances, claim_weights(voice)[known.rows])
            heard_on.append((voice.device, distances, claims_of(voice)[known.rows].astype(np.uint16), voice.trust))
        by_code, places = self._by_code(standing) / WEIGHT_ONE, np.arange(len(known))
        return {
            device: earned(claims.astype(np.int64), known.labels, by_code[distances, places], trust)
            for device, distances, claims, trust in heard_on
        }

    def _by_code(self, standing: _Standing) -> I64:
        """Return w for each distance code on each probe, int64 [codes, n]."""
        within = standing.trust.cumsum(axis=0)
        rank = min(self.clip_rank, standing.count)
        clip = (within * standing.count >= rank * within[-1]).argmax(axis=0)
        return self._table()[:, clip]

    def _table(self) -> I64:
        """The weight w of a device with code i where the clip is code j, [codes, codes]."""
        distances = distances_of(np.arange(DISTANCE_CODES, dtype=np.uint8)).astype(np.float64)
        excess = np.maximum(distances[:, None] - distances[None, :], 0.0)
        return to_weights(np.exp(-self.sharpness * excess))


def _weigher(by_code: I64) -> Weigher:
    return lambda voice: by_code[voice.distances, np.arange(len(voice.distances))] * claim_weights(voice)


@dataclass(slots=True)
class _Standing:
    """The trust of all voices that have each distance code on each of `probes`, int64 [codes, n]; and their count."""

    probes: int
    count: int = 0
    trust: I64 = field(init=False)

    def __post_init__(self) -> None:
        self.trust = np.zeros((DISTANCE_CODES, self.probes), np.int64)

    @classmethod
    def of(cls, voices: Iterable[Voice]) -> _Standing:
        standing: _Standing | None = None
        for voice in voices:
            standing = standing or cls(len(voice.distances))
            standing.add(voice.distances, claim_weights(voice))
        assert standing is not None
        return standing

    def add(self, distances: U8, claims: I64) -> tuple[U8, I64]:
        """Take in a voice whose rows weigh `claims` by trust, and return the cells where it stands."""
        cells = distances, np.arange(self.probes)
        self.trust[cells] += claims
        self.count += 1
        return cells


def claim_weights(voice: Voice) -> I64:
    """Return t of the class that each row claims, faded with the voice: int64 [n], at least 1."""
    weights: I64 = np.maximum(1, voice.trust[claims_of(voice)] * voice.weight // WEIGHT_ONE)
    return weights
