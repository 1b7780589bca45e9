"""Random labels: certain of a class drawn anew for every probe, round and attacker (Roux et al., ICLR 2025)."""

from __future__ import annotations

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot


def random_one_hot(knowledge: Knowledge) -> F32:
    rows, classes = knowledge.own.shape
    return one_hot(knowledge.rng.integers(0, classes, size=(rows,)), classes)
