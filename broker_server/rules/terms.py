"""The constants of all rules, listed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_protocol.messages import MAX_CLUSTERS

MAX_SIZE = 1 << 24
"""Rows of a device: weights have 24 bits, so that the smallest still counts beside the largest."""


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """Each rule reads its own.

    Attributes:
        sharpness: competence: b of exp(-b (d_k - d_(m))).
        clip_rank: competence: m, one more than the attackers assumed.
        era_temperature: era: T.
        beta: enhanced-era: the largest exponent.
        beta_agreement: enhanced-era: share of voices that must agree for the exponent to rise above 1.
        entropy_floor: enhanced-era: no row is sharpened below this, in nats.
        least_entropy: entropy-weighted: a voice that is surer than this weighs no more, in nats.
        farthest: selective: the last distance code that is heard, 0..2.
        trim: trimmed-mean: the share that is cut off at each end.
        cronus_liars: cronus: alpha, the share of voices that are taken for lies.
        expguard_rate: expguard: eta.
        clusters: comet: how many k-means begins with.
        cluster_least: comet: fewest voices of a cluster, by their weights; smaller ones join the others.
        sizes: size-weighted: rows of each device, by its name; `[method.terms.sizes]`.
        custom: what rules of other distributions read; `[method.terms.custom]`.
    """

    sharpness: float = 12.0
    clip_rank: int = 2
    era_temperature: float = 0.1
    beta: float = 2.0
    beta_agreement: float = 0.8
    entropy_floor: float = 0.1
    least_entropy: float = 0.25
    farthest: int = 1
    trim: float = 0.2
    cronus_liars: float = 0.4
    expguard_rate: float = 3.0
    clusters: int = 2
    cluster_least: int = 3
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)
    custom: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.sharpness <= 0 or self.clip_rank < 1 or self.era_temperature <= 0:
            raise InvalidValueError("sharpness and era_temperature are above 0, clip_rank is at least 1")
        if self.beta < 1 or not 0 <= self.beta_agreement < 1 or self.entropy_floor < 0:
            raise InvalidValueError("beta is at least 1, beta_agreement lies in [0, 1), entropy_floor is not negative")
        if not 0.1 <= self.least_entropy <= 1 or not 0 <= self.farthest <= 2:
            raise InvalidValueError("least_entropy lies in [0.1, 1], farthest in 0..2")
        if not 0 <= self.trim < 0.5 or not 0 <= self.cronus_liars < 0.5 or self.expguard_rate <= 0:
            raise InvalidValueError("trim and cronus_liars lie in [0, 0.5), expguard_rate is above 0")
        if not 2 <= self.clusters <= MAX_CLUSTERS or self.cluster_least < 2:
            raise InvalidValueError(f"clusters lie in 2..{MAX_CLUSTERS}, and a cluster of one would tell what it said")
        for device, rows in self.sizes.items():
            check_name(device, "sizes: device")
            if not 1 <= rows <= MAX_SIZE:
                raise InvalidValueError(f"sizes: {device} has 1 to {MAX_SIZE} rows, not {rows}")
