"""HIPS, hiding in plain sight: the most harmful answer among those that no filter can tell from an honest one.

    p(x) = argmax over q in hull{p_k(x), k honest} of harm(q)

    hips-lma   harm(q) = - sum_c y_c log((1 - a) y_c + a q_c)    cross-entropy of the attacked mean, a: attackers' share
    hips-cpa   harm(q) = - sum_c S[i, c] q_c                     S, i as in `cpa`

y is the mean of the honest answers (Roux et al., ICLR 2025, HIPS). Both harms are convex in q, so a corner of the hull
maximises them: on each probe the attacker repeats some honest device's answer, word for word.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32
from fleet_sim.attacks.cpa import similarity
from fleet_sim.attacks.knowledge import Knowledge

F64 = npt.NDArray[np.float64]


def most_lossy(knowledge: Knowledge) -> F32:
    """HIPS with the aim of LMA."""
    share = knowledge.attackers / (knowledge.attackers + len(knowledge.honest))
    believed = knowledge.honest_mean.astype(np.float64)
    return _most_harmful(knowledge.honest, loss(believed, knowledge.honest, share))


def least_similar_said(knowledge: Knowledge) -> F32:
    """HIPS with the aim of CPA."""
    believed = knowledge.honest_mean
    wanted = similarity(believed)[believed.argmax(axis=1)]
    return _most_harmful(knowledge.honest, -(wanted * knowledge.honest).sum(axis=2))


def loss(believed: F64, answers: F32, share: float) -> F64:
    """Return the cross-entropy of `believed` [n, classes] to itself mixed with `share` of `answers` [k, n, classes].

    Returns:
        float64 [k, n], in nats.
    """
    mixed = (1 - share) * believed + share * answers
    # Where nothing is believed nothing is lost; the bound keeps 0 log 0 from being NaN.
    nats: F64 = -(believed * np.log(np.maximum(mixed, np.finfo(np.float64).tiny))).sum(axis=2)
    return nats


def _most_harmful(answers: F32, harm: F64) -> F32:
    corners: F32 = answers[harm.argmax(axis=0), np.arange(answers.shape[1])]
    return corners
