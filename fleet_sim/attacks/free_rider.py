"""Free riders: take the consensus and give nothing that costs work.

    free-rider-uniform    every class alike
    free-rider-constant   certain of one class, the target, on every probe
    free-rider-replay     the last consensus, word for word; uniform before the first

Weights have free riders that send back what they got: Fraboni et al., Free-rider Attacks on Model Aggregation in
Federated Learning, AISTATS 2021. Replay is the same for soft labels; where many do it, a consensus stands still.
"""

from __future__ import annotations

import numpy as np

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot, uniform


def indifferent(knowledge: Knowledge) -> F32:
    return uniform(*knowledge.own.shape)


def constant(knowledge: Knowledge) -> F32:
    rows, classes = knowledge.own.shape
    return one_hot(np.full(rows, knowledge.target), classes)


def replayed(knowledge: Knowledge) -> F32:
    return knowledge.consensus
