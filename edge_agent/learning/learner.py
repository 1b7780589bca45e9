"""A device's own model: what it has learned so far, and the ways in which it learns more.

    bundle's theta --warm_up: private rows--> --train: private rows and a consensus, jointly--> ...
                                              --refresh: the same after enough new private rows have come--> ...

Each ends in one atomic checkpoint. Learning is safe to repeat: what the checkpoint already holds is not done again,
what was cut short goes on where it was or leaves everything as it was, and the order of rows is drawn from what is
learned, so that a repetition gives the same weights.

Under privacy terms none of this is used: see `privacy.learner`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.learning.acceptance import Score, is_acceptable
from edge_agent.learning.learned import Learned, Speaker
from edge_agent.learning.local_prior import correct, log_prior
from edge_agent.round.events import Refreshed, Trained
from edge_agent.training.between import Between
from edge_agent.training.memory import batch_within
from fd_protocol.messages import TrainingTerms
from fd_runtime.fitting import FitReport, FitTerms, LabelledRows, ProbeRows
from fd_runtime.models.model import F32, OptimizerState
from fd_runtime.models.opening import LoadedModel

GUARD = "guard"
"""Why a training was not accepted."""


@dataclass(frozen=True, slots=True)
class PrivateFeatures:
    """A device's rows as the tail reads them: those it trains on, and those that the guard looks at."""

    training: LabelledRows
    hold_out: LabelledRows


class Learner(Speaker):
    """The trainable part of a bundle on one device.

    Args:
        model: freshly opened, with the bundle's own theta.
        bundle: its digest.
        private: the device's rows; both kinds may be empty.
        path: of the checkpoint; None = nothing is kept.
        seed: what the order of rows is drawn from, beside what is learned.
        between: what happens between two steps.
        memory_mb: most of a step's tensors; 0 = no bound.
        publish: takes the parameters that are accepted and kept, for whoever predicts meanwhile.
    """

    def __init__(
        self,
        model: LoadedModel,
        bundle: bytes,
        private: PrivateFeatures,
        path: Path | None,
        *,
        seed: bytes,
        between: Between | None = None,
        memory_mb: float = 0.0,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        self._release_theta = model.train_session.state.theta  # before a checkpoint takes its place
        super().__init__(Learned(model, bundle, path, between or Between(), publish=publish))
        self._private, self._seed = private, seed
        self._batch_rows = batch_within(model.manifest, memory_mb)
        self._release = self._score_of_release()

    def renew(self, private: PrivateFeatures) -> None:
        """Go on with other private rows; what was learned stays, and the release is judged by the new hold-out."""
        self._private = private
        self._release = self._score_of_release()

    def warm_up(self, terms: TrainingTerms) -> None:
        """Fine-tune on private rows, unless that was done or there are none.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError, DeferredError: likewise.
        """
        if self._learned.is_warm:
            return
        with self._learned.all_or_nothing():
            if len(self._private.training.labels):
                self._fit(None, FitTerms(terms.warm_up_epochs, learning_rate=terms.learning_rate), b"warm-up")
            self._learned.keep(is_warm=True, trained=None)

    def train(self, consensus_sha256: bytes, probes: ProbeRows, temperature: float, terms: TrainingTerms) -> Trained:
        """Learn from private rows and a consensus in the same batches, and return how it ended.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError, DeferredError: likewise.
        """
        last = self._learned.trained
        if last is not None and last.consensus_sha256 == consensus_sha256:
            return last
        with self._learned.all_or_nothing() as before:
            report = self._fit(probes, _joint(terms, temperature), consensus_sha256)
            is_accepted, metrics = self._judge(report, before)
            trained = Trained(consensus_sha256, is_accepted, "" if is_accepted else GUARD, metrics)
            self._learned.keep(is_warm=True, trained=trained)
        return trained

    def refresh(
        self, private_epoch: int, probes: ProbeRows | None, temperature: float, terms: TrainingTerms
    ) -> Refreshed:
        """Learn from private rows that have changed; jointly with the last consensus, if there was one.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError, DeferredError: likewise.
        """
        last = self._learned.refreshed
        if last is not None and last.private_epoch == private_epoch:
            return last
        if not len(self._private.training.labels):
            return Refreshed(private_epoch, accepted=True)
        with self._learned.all_or_nothing() as before:
            report = self._fit(probes, _joint(terms, temperature), b"refresh %d" % private_epoch)
            is_accepted, metrics = self._judge(report, before)
            refreshed = Refreshed(private_epoch, is_accepted, metrics)
            self._learned.keep(is_warm=True, trained=self._learned.trained, refreshed=refreshed)
        return refreshed

    def _fit(self, probes: ProbeRows | None, terms: FitTerms, what: bytes) -> FitReport:
        terms = replace(terms, batch_rows=self._batch_rows)
        return self._learned.fit(self._private.training, probes, terms, self._seed + what)

    def _judge(self, report: FitReport, before: OptimizerState) -> tuple[bool, dict[str, float]]:
        """Let the new weights stay, or put those `before` back; return which, and what was measured."""
        theta = self._learned.session.state.theta
        score = self._score(theta)
        metrics = {"loss": report.epoch_losses[-1], "steps": float(report.steps), **self._measures(theta, score)}
        if is_acceptable(score, self._release):
            return True, metrics
        self._learned.restore(before)
        return False, metrics

    def _score_of_release(self) -> Score:
        """Return what the bundle's own weights reach on the hold-out; the model then says what it has learned again."""
        if not len(self._private.hold_out.labels):
            return Score(0, 0)
        score = self._score(self._release_theta)
        self._learned.restore(self._learned.state)
        return score

    def _measures(self, theta: F32, score: Score) -> dict[str, float]:
        if not score.rows:
            return {}
        return {
            "hold_out_accuracy": score.accuracy,
            "hold_out_accuracy_personal": self._score(theta, is_personal=True).accuracy,
            "release_accuracy": self._release.accuracy,
        }

    def _score(self, theta: F32, *, is_personal: bool = False) -> Score:
        """Return the score of `theta` on the hold-out, with or without the correction by the local prior."""
        rows, tail = self._private.hold_out, self._learned.tail
        tail.load(theta)
        if not len(rows.labels):
            return Score(0, 0)
        logits = tail.logits(rows.features)
        if is_personal:
            logits = correct(logits, log_prior(self._private.training.labels, rows.classes))
        return Score(int((logits.argmax(axis=1) == rows.labels).sum()), len(rows.labels))


def _joint(terms: TrainingTerms, temperature: float) -> FitTerms:
    return FitTerms(
        terms.epochs,
        learning_rate=terms.learning_rate,
        temperature=temperature,
        probe_weight=terms.probe_weight,
    )
