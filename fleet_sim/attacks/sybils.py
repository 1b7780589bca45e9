"""Sybils: one attacker behind many identities, all telling the same lie in slightly different words.

    p_i(x) = (1 - e) one-hot of l(x) + e d_i(x)        d_i: drawn for identity i, uniform on the simplex

l is a class other than the one that the first identity's model names, drawn per probe and round and shared by all:
unlike independent random labels, their votes add up. The noise keeps payloads from being equal bytes. Sybils: Douceur
2002; against federated learning Fung et al., The Limitations of Federated Learning in Sybil Settings, RAID 2020.
"""

from __future__ import annotations

import numpy as np

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot

NOISE = 0.1


def same_lie(knowledge: Knowledge) -> F32:
    truth = knowledge.accomplices[0].argmax(axis=1)
    rows, classes = knowledge.own.shape
    lie = (truth + knowledge.shared.integers(1, classes, size=rows)) % classes
    noise = knowledge.rng.dirichlet(np.ones(classes), size=rows)
    return ((1 - NOISE) * one_hot(lie, classes) + NOISE * noise).astype(np.float32)
