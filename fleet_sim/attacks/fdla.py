"""Logits poisoning: keep the shape of an honest answer, move its confidences to other classes.

    fdla     the class of rank r gets the confidence of rank r - 1, the likeliest gets the smallest
    pcfdla   logit s for the second likeliest class and -s for all others: probability `PEAK`, the rest in equal parts

FDLA: Tang et al. 2024, Logits Poisoning Attack in Federated Distillation, arXiv 2401.03685; a permutation, hence the
same for logits and for softened labels. PCFDLA: Tang et al. 2024, Peak-Controlled Logits Poisoning Attack, arXiv
2407.18039; for C classes at temperature T, s = T/2 log((C - 1) PEAK / (1 - PEAK)) says how loud it is.
"""

from __future__ import annotations

import numpy as np

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, second_class

PEAK = 0.9


def rotated(knowledge: Knowledge) -> F32:
    """FDLA."""
    ranked = np.argsort(-knowledge.own, axis=1, kind="stable")
    answer = np.empty_like(knowledge.own)
    confidences = np.take_along_axis(knowledge.own, ranked, axis=1)
    np.put_along_axis(answer, np.roll(ranked, -1, axis=1), confidences, axis=1)
    return answer


def peaked(knowledge: Knowledge) -> F32:
    """PCFDLA."""
    rows, classes = knowledge.own.shape
    answer = np.full((rows, classes), (1 - PEAK) / (classes - 1), np.float32)
    answer[np.arange(rows), second_class(knowledge.own)] = PEAK
    return answer
