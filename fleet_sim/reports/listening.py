"""What rules listen to in the last round, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fd_runtime.pages import Section
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.rounds import RoundMetrics


def listening_sections(known: Mapping[str, Sequence[RoundMetrics]]) -> Iterator[Section]:
    """Yield whom rules listen to, and for rules with competence maps how classes are covered.

    Args:
        known: the last rounds of each rule, one a seed.
    """
    columns = ("rule", "effective voters", "uncovered probes, %", "largest share, %", "least gain", "largest gain")
    rows = tuple((name, *_listening(seeds)) for name, seeds in known.items())
    note = "Gain: accuracy of the consensus on the probes with a device, less that without it, in points."
    yield Section("Whom the rules listen to, last round", columns, rows, note)
    for name, seeds in known.items():
        yield Section(
            f"{name}: coverage of classes, last round",
            ("class", "probes", "effective voters", "uncovered, %", "devices near"),
            _classes([metrics for metrics in seeds if metrics.classes]),
        )


def _listening(seeds: Sequence[RoundMetrics]) -> tuple[str, ...]:
    gains = [list(metrics.gains.values()) for metrics in seeds if metrics.gains]
    least, largest = (
        estimate([pick(each) for each in gains]).in_percent(signed=True) if gains else "-" for pick in (min, max)
    )
    return (
        f"{np.mean([metrics.voters for metrics in seeds]):.1f} of {seeds[0].devices}",
        estimate([metrics.uncovered for metrics in seeds]).in_percent(),
        estimate([max(metrics.shares.values()) for metrics in seeds]).in_percent(),
        least,
        largest,
    )


def _classes(seeds: Sequence[RoundMetrics]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            str(each[0].label),
            f"{np.mean([one.probes for one in each]):.0f}",
            f"{np.mean([one.voters for one in each]):.1f}",
            estimate([one.uncovered for one in each]).in_percent(),
            f"{np.mean([one.near_devices for one in each]):.1f}",
        )
        for each in zip(*(metrics.classes for metrics in seeds), strict=True)
    )
