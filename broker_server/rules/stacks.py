"""All voices of a few probes at a time, for rules that must compare voices with one another.

The voices are heard once for who they are and once for each block of rows, so memory stays within a budget and the time
grows with devices x blocks. Within a block they stand in the order of their names: arithmetic in floats then gives the
same bits for any order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from broker_server.rules.voice import F64, WEIGHT_ONE, Voice, heard, normalise
from fd_protocol.soft_labels import F32

BUDGET_BYTES = 128 << 20


def by_probe(voices: Iterable[Voice], joined: Callable[[F64, F64], F64], budget_bytes: int = BUDGET_BYTES) -> F32:
    """Return what `joined` makes of each probe, rows normalised: float32 [n, classes].

    Args:
        voices: who speak; a collection.
        joined: (weights [devices], probabilities [devices, rows, classes]) -> [rows, classes] >= 0.
        budget_bytes: for the probabilities of a block.
    """
    weights = {voice.device: voice.weight / WEIGHT_ONE for voice in heard(voices)}
    first = next(iter(voices))
    (count, classes), place = first.integers.shape, {device: index for index, device in enumerate(sorted(weights))}
    ordered = np.array([weights[device] for device in place])
    step = max(1, budget_bytes // (8 * classes * len(place)))
    consensus = np.empty((count, classes), np.float32)
    for start in range(0, count, step):
        block = np.empty((len(place), min(step, count - start), classes))
        for voice in voices:
            rows = voice.integers[start : start + step]
            block[place[voice.device]] = rows / rows.sum(axis=1, keepdims=True)
        consensus[start : start + step] = normalise(joined(ordered, block))
    return consensus
