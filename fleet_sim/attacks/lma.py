"""LMA, loss maximisation: certain of the class that the honest think least likely.

    p(x) = one-hot of argmin_c y_c(x)        y: mean of the honest answers

It maximises the cross-entropy between y and the attacked mean (Roux et al., On the Byzantine-Resilience of
Distillation-Based Federated Learning, ICLR 2025, figure 2).
"""

from __future__ import annotations

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot


def least_likely(knowledge: Knowledge) -> F32:
    believed = knowledge.honest_mean
    return one_hot(believed.argmin(axis=1), believed.shape[1])
