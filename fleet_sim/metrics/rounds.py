"""What a report says of a round beside its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from broker_server.core.influence import leave_one_out
from broker_server.rules import Need, Rule
from broker_server.rules.voice import Voice
from fd_runtime.models.model import I64
from fleet_sim.metrics.listening import (
    ClassCoverage,
    are_uncovered,
    by_class,
    contribution_shares,
    effective_voters,
    weights_of,
)

MOST_GAINS = 100
"""Of more devices than this, gains are not asked: their cost is quadratic."""


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """One round.

    Attributes:
        devices: that were heard.
        voters: effective voters per probe, mean.
        uncovered: share of probes that every device is far from; NaN without competence maps.
        shares: contribution of each device, sum 1.
        gains: accuracy of the consensus with each device less that without it; {} of many devices.
        classes: coverage of each; () without competence maps.
    """

    devices: int
    voters: float
    uncovered: float = float("nan")
    shares: Mapping[str, float] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[ClassCoverage, ...] = ()


def examine(rule: Rule, voices: Sequence[Voice], labels: I64 | None) -> RoundMetrics:
    """Return the metrics of a round.

    Args:
        rule: that joined them.
        voices: all who were heard.
        labels: of the probes; whoever simulates knows them. None: what is spoken of has none.
    """
    weights, names = weights_of(rule, voices), [voice.device for voice in voices]
    distances = np.stack([voice.distances for voice in voices])
    has_maps, is_small = Need.COMPETENCE in rule.card.needs, len(voices) <= MOST_GAINS
    gains = leave_one_out(rule, voices, np.arange(len(labels)), labels) if is_small and labels is not None else {}
    return RoundMetrics(
        devices=len(voices),
        voters=float(effective_voters(weights).mean()),
        uncovered=float(are_uncovered(distances).mean()) if has_maps else float("nan"),
        shares=dict(zip(names, contribution_shares(weights).tolist(), strict=True)),
        gains=gains,
        classes=by_class(weights, distances, labels, voices[0].integers.shape[1])
        if has_maps and labels is not None
        else (),
    )
