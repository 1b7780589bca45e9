"""What a bundle costs on this device: how long one sample takes, and how much memory it is to have it open.

Measured in the trial's process with the bundle's golden samples, one at a time, as live samples come. A busy moment is
no property of a bundle, so the best of a few series speaks.
"""

from __future__ import annotations

import time

import numpy as np

from edge_agent.care import host
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle
from fd_runtime.models.golden import Golden
from fd_runtime.models.model import Inputs
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import preprocessed

_SERIES, _SAMPLES, _WARM_UP = 3, 40, 5
LATENCY, MEMORY = "latency_p95_ms", "memory_mb"


def latency_p95_ms(model: LoadedModel, bundle: Bundle) -> float:
    """Return the time that 19 of 20 samples stay below, of the best series."""
    task = bundle.manifest.task
    samples = Golden.from_bytes(bundle.read(Role.GOLDEN), task).samples
    rows = [preprocessed(samples[at : at + 1], task) for at in range(len(samples))]
    return min(_series_p95_ms(model, rows) for _ in range(_SERIES))


def _series_p95_ms(model: LoadedModel, rows: list[Inputs]) -> float:
    taken_ms = []
    for number in range(_WARM_UP + _SAMPLES):
        began_s = time.perf_counter()
        model.tail.logits(model.features(rows[number % len(rows)]))
        taken_ms.append(1000.0 * (time.perf_counter() - began_s))
    return float(np.percentile(taken_ms[_WARM_UP:], 95))


class Growth:
    """How much this process has grown since, in MiB."""

    def __init__(self) -> None:
        self._before_mb = host.resident_mb() or 0.0

    @property
    def memory_mb(self) -> float:
        return max(0.0, (host.resident_mb() or 0.0) - self._before_mb)
