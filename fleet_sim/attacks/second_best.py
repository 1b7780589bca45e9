"""Second-best flip: certain of the class that the honest think second likeliest.

The lie that is easiest to believe; an adversarial sign flip in the terms of Roux et al., ICLR 2025 (their code).
"""

from __future__ import annotations

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot, second_class


def second_likeliest(knowledge: Knowledge) -> F32:
    believed = knowledge.honest_mean
    return one_hot(second_class(believed), believed.shape[1])
