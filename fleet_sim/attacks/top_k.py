"""Top-k impersonation: speak as the most typical honest device does, and lie where it is surest.

    p(x) = p_t(x), with its largest and smallest confidence exchanged on the probes that are, for some class, among the
    k where p_t is surest of it;  t: the honest device whose answers lie nearest to the honest mean by cosine

Joins two attacks of Li et al., Byzantine Robust Aggregation in Federated Distillation with Adversaries, ICDCS 2024: one
perturbs the k largest values of each class's column, the other passes for somebody else. A filter that compares whole
answers sees a typical one.
"""

from __future__ import annotations

import numpy as np

from fd_runtime.models.model import F32, I64
from fleet_sim.attacks.knowledge import Knowledge

SHARE = 0.5
"""k is this share of the probes that a class has on average."""


def impersonated(knowledge: Knowledge) -> F32:
    answer: F32 = knowledge.honest[most_typical(knowledge.honest)].copy()
    rows = surest(answer, max(1, round(SHARE * answer.shape[0] / answer.shape[1])))
    top, bottom = answer[rows].argmax(axis=1), answer[rows].argmin(axis=1)
    answer[rows, top], answer[rows, bottom] = answer[rows, bottom], answer[rows, top]
    return answer


def most_typical(honest: F32) -> int:
    """Return which of [honest, n, classes] is nearest to their mean by cosine."""
    flat = honest.reshape(len(honest), -1).astype(np.float64)
    return int(np.argmax(flat @ flat.mean(axis=0) / np.linalg.norm(flat, axis=1)))


def surest(answers: F32, k: int) -> I64:
    """Return the rows of [n, classes] that are among the `k` largest of some column, ascending."""
    columns = np.argsort(-answers, axis=0, kind="stable")[:k]
    return np.unique(columns)
