"""Label flip: honest about every class but one.

    p_target = own_target + own_source        p_source = 0        p_c = own_c for every other class

This is exactly what the best possible model says that was trained on private rows with `source` relabelled as `target`,
the data poisoning of Tolpegin et al. 2020 (Data Poisoning Attacks Against Federated Learning Systems, ESORICS).
"""

from __future__ import annotations

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge


def relabelled(knowledge: Knowledge) -> F32:
    answer = knowledge.own.copy()
    answer[:, knowledge.target] += answer[:, knowledge.source]
    answer[:, knowledge.source] = 0
    return answer
