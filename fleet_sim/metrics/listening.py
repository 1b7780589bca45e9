"""Whom a rule listens to on each probe. Weights are [devices, probes], as large as one likes: their shares count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker_server.rules import Rule, weigher_of
from broker_server.rules.voice import Voice
from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_runtime.models.model import I64

F64 = npt.NDArray[np.float64]


def weights_of(rule: Rule, voices: Sequence[Voice]) -> F64:
    """Return what the rows of each voice weigh in the consensus of `rule`, [devices, probes].

    A rule whose consensus is no weighted mean is taken to weigh a voice by its age.
    """
    weigh = weigher_of(rule, voices)
    return np.array([weigh(voice) for voice in voices], np.float64)


def shares(weights: F64) -> F64:
    """Return each device's share of each probe: columns sum to 1; alike where nobody has any weight."""
    totals = weights.sum(axis=0)
    return np.where(totals > 0, weights, 1.0) / np.where(totals > 0, totals, float(len(weights)))


def effective_voters(weights: F64) -> F64:
    """Return how many equal voters would be as concentrated, on each probe: 1 / sum of squared shares [probes].

    The inverse of Simpson's index (1949), also Hill's number of order 2: 1 where one device decides, all where all are
    heard alike.
    """
    count: F64 = 1.0 / (shares(weights) ** 2).sum(axis=0)
    return count


def contribution_shares(weights: F64) -> F64:
    """Return the part of all consensus rows that is each device's, [devices], sum 1."""
    mean: F64 = shares(weights).mean(axis=1)
    return mean


def are_uncovered(distances: U8) -> npt.NDArray[np.bool_]:
    """Return whether every device is far from a probe, [probes], of distance codes [devices, probes]."""
    is_far: npt.NDArray[np.bool_] = (distances == FAR).all(axis=0)
    return is_far


@dataclass(frozen=True, slots=True)
class ClassCoverage:
    """How well the devices cover the probes of a class.

    Attributes:
        label: the class.
        probes: how many there are.
        voters: effective voters on them, mean; NaN without probes.
        uncovered: share of them that every device is far from; NaN without probes.
        near_devices: devices that are near at least one of them.
    """

    label: int
    probes: int
    voters: float
    uncovered: float
    near_devices: int


def by_class(weights: F64, distances: U8, labels: I64, classes: int) -> tuple[ClassCoverage, ...]:
    """Return the coverage of each class.

    Args:
        weights: [devices, probes].
        distances: codes [devices, probes].
        labels: of the probes: the true ones where they are known, else what the consensus says.
        classes: how many there are.
    """
    voters, uncovered = effective_voters(weights), are_uncovered(distances)
    return tuple(_of_class(label, labels == label, voters, uncovered, distances) for label in range(classes))


def _of_class(
    label: int, is_of: npt.NDArray[np.bool_], voters: F64, uncovered: npt.NDArray[np.bool_], distances: U8
) -> ClassCoverage:
    count = int(is_of.sum())
    if not count:
        return ClassCoverage(label, 0, float("nan"), float("nan"), 0)
    near = int((distances[:, is_of] == 0).any(axis=1).sum())
    return ClassCoverage(label, count, float(voters[is_of].mean()), float(uncovered[is_of].mean()), near)
