"""An attacker's knowledge, drawn by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge


def answers(seed: int, *shape: int) -> F32:
    """Return rows that sum to 1, float32 [*shape]; the last is the number of classes."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def knowledge(
    *, probes: int = 40, classes: int = 5, attackers: int = 3, devices: int = 4, seed: int = 0, **known: Any
) -> Knowledge:
    """Return what an omniscient attacker knows; `known` replaces what was drawn."""
    drawn = Knowledge(
        own=answers(seed, probes, classes),
        consensus=answers(seed + 1, probes, classes),
        accomplices=answers(seed + 2, attackers, probes, classes),
        honest=answers(seed + 3, devices, probes, classes),
        attackers=attackers,
        source=0,
        target=1,
        rng=np.random.default_rng(seed + 4),
        shared=np.random.default_rng(seed + 5),
    )
    return replace(drawn, **known)
