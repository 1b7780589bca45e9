"""When a device's link works: outages that come and go, drawn by the seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def outages(online: float, mean_s: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield begin and end of each outage in seconds from the start, for ever; nothing for a link that always works.

    Lengths of outages and of the time between them are exponential (an alternating renewal process), so that the link
    works a share `online` of the time in the long run.
    """
    if online == 1:
        return
    between_s, at_s = mean_s * online / (1 - online), 0.0
    while True:
        begin_s = at_s + rng.exponential(between_s)
        at_s = begin_s + rng.exponential(mean_s)
        yield begin_s, at_s
