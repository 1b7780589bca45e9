"""What an attacker knows when it answers: its own model always, the rest only as far as its threat model goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

import numpy as np

from fd_runtime.models.model import F32, I64


class Sees(Flag):
    """What a threat model grants beside the attacker's own model."""

    OWN_MODEL_ONLY = 0
    CONSENSUS = auto()
    """The last consensus, as every device does."""
    ACCOMPLICES = auto()
    """What the other attackers' models say."""
    HONEST = auto()
    """What every honest device will send this round: omniscient."""


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """One attacker's view of the probes of one round. Arrays are read-only; what it may not see is left blank.

    Attributes:
        own: what its own model says, float32 [n, classes].
        consensus: the last consensus on these probes, float32 [n, classes]; uniform where there has been none.
        accomplices: what the attackers' models say, its own among them, float32 [attackers, n, classes]; else [0, ...].
        honest: what the honest devices' models say, float32 [honest, n, classes]; else [0, ...].
        attackers: how many they are.
        source, target: the classes that a targeted attack confuses: source shall be taken for target.
        rng: draws for all attackers, one after the other.
        shared: draws the same for each of them, anew each round.
    """

    own: F32
    consensus: F32
    accomplices: F32
    honest: F32
    attackers: int
    source: int
    target: int
    rng: np.random.Generator
    shared: np.random.Generator

    def __post_init__(self) -> None:
        for array in (self.own, self.consensus, self.accomplices, self.honest):
            array.flags.writeable = False

    @property
    def honest_mean(self) -> F32:
        """What the plain mean would make of the honest devices, float32 [n, classes]."""
        return np.asarray(self.honest.mean(axis=0), np.float32)


def one_hot(labels: I64, classes: int) -> F32:
    """Return all mass on `labels` [n], float32 [n, classes]."""
    return np.eye(classes, dtype=np.float32)[labels]


def uniform(rows: int, classes: int) -> F32:
    """Return what knows nothing, float32 [rows, classes]."""
    return np.full((rows, classes), 1 / classes, np.float32)


def second_class(answers: F32) -> I64:
    """Return the second likeliest class of each row, [n]; of equal ones the first."""
    ranked: I64 = np.argsort(-answers, axis=1, kind="stable")
    return ranked[:, 1]
