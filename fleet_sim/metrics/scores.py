"""What a field asks of a model besides accuracy: scores of its probabilities, by name.

    auroc                           area under the curve of true over false positives
    auprc                           average precision: sum over thresholds of (recall gained) x precision
    sensitivity-at-95-specificity   most of class 1 that is found where at most 5 % of class 0 raise an alarm
    recall-at-1-permille-alerts     most of class 1 that is found where one row in a thousand raises an alarm
    top-3                           share of rows whose label is among the three likeliest classes
    perplexity                      exp of the mean of -log p(label)

The first four are of tasks of two classes; class 1 is what is looked for. Equal answers share a threshold, so no order
of rows is luckier than another. Where the rows at hand hold more of class 1 than the field does (fraud is undersampled
in public sets), `prevalence` weighs class 0 until they hold as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.soft_labels import soften
from fd_runtime.models.model import F32, I64
from fleet_sim.kept_names import LATER, repr_of

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class ScoreTerms:
    """Which scores, of which world, and how a device's own rows are judged.

    Attributes:
        names: of scores; () = none.
        prevalence: share of class 1 in the field; None = as in the rows.
        local_prior: devices correct answers about their own rows by it; as `[inference] local_prior` of an agent.
    """

    names: tuple[str, ...] = ()
    prevalence: float | None = None
    local_prior: bool = field(default=True, metadata=LATER)

    __repr__ = repr_of

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in SCORES:
                raise InvalidValueError(f"no score {name!r}; there are {', '.join(SCORES)}")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise InvalidValueError("a prevalence lies in (0, 1)")

    def check(self, classes: int) -> None:
        """See that a task of so many classes has these scores.

        Raises:
            InvalidValueError: some are of two classes, and it has more.
        """
        if classes != 2 and (known := [name for name in self.names if SCORES[name].is_binary]):
            raise InvalidValueError(f"{', '.join(known)}: of two classes, not of {classes}")

    def check_choice(self, name: str) -> None:
        """See that settings can be chosen by this score.

        Raises:
            InvalidValueError: nobody asks for it, or less of it is better.
        """
        if name not in self.names or not SCORES[name].is_share:
            raise InvalidValueError(
                f"settings are chosen by a score of the scenario, the more the better: not {name!r}"
            )


@dataclass(frozen=True, slots=True)
class Scored:
    """What one score came to.

    Attributes:
        name: of the score.
        all: on test; the mean, where devices have models of their own.
        own: of each device on its kept-back rows, corrected by its local prior; NaN where they cannot tell, () where
            nobody was asked.
    """

    name: str
    all: float
    own: tuple[float, ...] = ()

    @property
    def own_mean(self) -> float:
        """Mean over the devices that can tell; NaN where none can."""
        return _mean(self.own)

    @property
    def own_worst(self) -> float:
        """The device that is worst off; NaN where none can tell."""
        known = [value for value in self.own if not np.isnan(value)]
        return SCORES[self.name].worst(known) if known else float("nan")


Answers = tuple[F32, I64]
"""Logits [n, classes] and labels [n] of the same rows."""


def scored(terms: ScoreTerms, test: Sequence[Answers], own: Sequence[Answers] = ()) -> tuple[Scored, ...]:
    """Return the scores of one model, or of one a device.

    Args:
        terms: which.
        test: of each model on test.
        own: of each device's model on its own rows.
    """
    return tuple(
        Scored(
            name,
            _mean([score_of(name, *answers, terms.prevalence) for answers in test]),
            tuple(score_of(name, *answers, terms.prevalence) for answers in own),
        )
        for name in terms.names
    )


def score_of(name: str, logits: F32, labels: I64, prevalence: float | None = None) -> float:
    """Return one score; NaN where the rows cannot tell: none, or for scores of two classes one class alone."""
    score = SCORES[name]
    if not len(labels) or (score.is_binary and len(np.unique(labels)) < 2):
        return float("nan")
    return score.of(logits.astype(np.float64), labels, _weights(labels, prevalence))


def _weights(labels: I64, prevalence: float | None) -> F64:
    """Return the weight of each row: 1, or for class 0 what makes class 1 as rare as it is."""
    weights = np.ones(len(labels))
    if prevalence is not None and (others := labels != 1).any():
        weights[others] = (~others).sum() / others.sum() * (1 - prevalence) / prevalence
    return weights


@dataclass(frozen=True, slots=True)
class _Score:
    of: Callable[[F64, I64, F64], float]
    is_binary: bool = True
    is_share: bool = True
    worst: Callable[[Sequence[float]], float] = min


def _alarms(logits: F64, labels: I64, weights: F64) -> tuple[F64, F64]:
    """Return the weight of rows of class 1 and of class 0 at or above each threshold, from none to all, [t + 1].

    Thresholds are log-odds: as float32 probabilities, all that a model is very sure of would be 1 and one threshold.
    """
    odds = logits[:, 1] - logits[:, 0]
    order = (-odds).argsort(kind="stable")
    ends = np.flatnonzero(np.diff(odds[order], append=-np.inf))  # the last row of each threshold
    found, false = (np.cumsum((labels[order] == label) * weights[order])[ends] for label in (1, 0))
    return np.concatenate([[0.0], found]), np.concatenate([[0.0], false])


def _auroc(logits: F64, labels: I64, weights: F64) -> float:
    found, false = _alarms(logits, labels, weights)
    return float((np.diff(false) * (found[1:] + found[:-1])).sum() / 2 / (found[-1] * false[-1]))


def _auprc(logits: F64, labels: I64, weights: F64) -> float:
    found, false = _alarms(logits, labels, weights)
    return float((np.diff(found) * found[1:] / (found[1:] + false[1:])).sum() / found[-1])


def _sensitivity(logits: F64, labels: I64, weights: F64) -> float:
    found, false = _alarms(logits, labels, weights)
    return _most_found(found, false <= 0.05 * false[-1])


def _recall(logits: F64, labels: I64, weights: F64) -> float:
    found, false = _alarms(logits, labels, weights)
    return _most_found(found, found + false <= 0.001 * (found[-1] + false[-1]))


def _most_found(found: F64, is_allowed: npt.NDArray[np.bool_]) -> float:
    return float(found[is_allowed].max() / found[-1])


def _top_3(logits: F64, labels: I64, weights: F64) -> float:  # noqa: ARG001 - all rows count alike
    better = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    return float((better < 3).mean())


def _perplexity(logits: F64, labels: I64, weights: F64) -> float:  # noqa: ARG001 - all rows count alike
    probabilities = soften(logits.astype(np.float32), 1.0).astype(np.float64)
    likelihoods = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    return float(np.exp(-np.log(likelihoods).mean()))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


SCORES: Mapping[str, _Score] = {
    "auroc": _Score(_auroc),
    "auprc": _Score(_auprc),
    "sensitivity-at-95-specificity": _Score(_sensitivity),
    "recall-at-1-permille-alerts": _Score(_recall),
    "top-3": _Score(_top_3, is_binary=False),
    "perplexity": _Score(_perplexity, is_binary=False, is_share=False, worst=max),
}
