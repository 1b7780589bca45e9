"""A device's own model: what it has learned so far, and the two ways in which it learns more.

    bundle's theta --warm_up: private rows--> --train: private rows and a consensus, jointly--> ...

Each ends in one atomic checkpoint. Learning is safe to repeat: what the checkpoint already holds is not done again,
what was broken off leaves everything as it was, and the order of rows is drawn from what is learned, so that a
repetition gives the same weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent import checkpoint as checkpoints
from edge_agent.acceptance import Score, is_acceptable
from edge_agent.checkpoint import Checkpoint
from edge_agent.events import Trained
from edge_agent.local_prior import correct, log_prior
from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.identity import sha256
from fd_protocol.messages import TrainingTerms
from fd_runtime.fitting import FitReport, FitTerms, LabelledRows, ProbeRows, fit
from fd_runtime.model import F32, Features, OptimizerState, ThetaError
from fd_runtime.opening import LoadedModel

GUARD = "guard"
"""Why a training was not accepted."""

log = logging.getLogger("edge-agent")


class BrokenOffError(Exception):
    """Whoever asked for the learning is gone; nothing has changed."""


@dataclass(frozen=True, slots=True)
class PrivateFeatures:
    """A device's rows as the tail reads them: those it trains on, and those that the guard looks at."""

    training: LabelledRows
    hold_out: LabelledRows


class Learner:
    """The trainable part of a bundle on one device.

    Args:
        model: freshly opened, with the bundle's own theta.
        bundle: its digest.
        private: the device's rows; both kinds may be empty.
        path: of the checkpoint; None = nothing is kept.
        seed: what the order of rows is drawn from, beside what is learned.
        should_stop: asked after every step; True breaks the learning off.
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
        should_stop: Callable[[], bool] = lambda: False,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        self._tail, self._session, self._publish = model.tail, model.train_session, publish
        self._private, self._path, self._seed, self._should_stop = private, path, seed, should_stop
        self._release_theta = model.train_session.state.theta
        self._release = self._score()
        self._bundle, self._is_warm = bundle, False
        self._trained: Trained | None = None
        self._resume()

    def logits(self, features: Features) -> F32:
        """Return what the model says now: float32 [n, classes]."""
        return self._tail.logits(features)

    def renew(self, private: PrivateFeatures) -> None:
        """Go on with other private rows; what was learned stays, and the release is judged by the new hold-out."""
        self._private = private
        self._tail.load(self._release_theta)
        self._release = self._score()
        self._tail.load(self._session.state.theta)

    def warm_up(self, terms: TrainingTerms) -> None:
        """Fine-tune on private rows, unless that was done or there are none.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError: likewise.
        """
        if self._is_warm:
            return
        with self._all_or_nothing():
            if len(self._private.training.labels):
                self._fit(None, FitTerms(terms.warm_up_epochs, learning_rate=terms.learning_rate), b"warm-up")
            self._keep(is_warm=True, trained=None)

    def train(self, consensus_sha256: bytes, probes: ProbeRows, temperature: float, terms: TrainingTerms) -> Trained:
        """Learn from private rows and a consensus in the same batches, and return how it ended.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError: likewise.
        """
        last = self._trained
        if last is not None and last.consensus_sha256 == consensus_sha256:
            return last
        fit_terms = FitTerms(
            terms.epochs,
            learning_rate=terms.learning_rate,
            temperature=temperature,
            probe_weight=terms.probe_weight,
        )
        with self._all_or_nothing() as before:
            report = self._fit(probes, fit_terms, consensus_sha256)
            trained = self._judge(consensus_sha256, report, before)
            self._keep(is_warm=True, trained=trained)
        return trained

    @contextmanager
    def _all_or_nothing(self) -> Iterator[OptimizerState]:
        before = self._session.state
        try:
            yield before
        except BaseException:
            self._restore(before)
            raise

    def _fit(self, probes: ProbeRows | None, terms: FitTerms, what: bytes) -> FitReport:
        rng = np.random.default_rng(int.from_bytes(sha256(self._seed + what)[:8], "big"))
        report = fit(
            self._session, self._private.training, probes, terms, rng, should_stop=lambda _: self._should_stop()
        )  # fmt: skip
        if not report.is_complete:
            raise BrokenOffError
        return report

    def _judge(self, consensus_sha256: bytes, report: FitReport, before: OptimizerState) -> Trained:
        """Let the new weights stay, or put those `before` back."""
        self._tail.load(self._session.state.theta)
        score = self._score()
        metrics = {"loss": report.epoch_losses[-1], "steps": float(report.steps), **self._measures(score)}
        if is_acceptable(score, self._release):
            return Trained(consensus_sha256, accepted=True, metrics=metrics)
        self._restore(before)
        return Trained(consensus_sha256, accepted=False, reason=GUARD, metrics=metrics)

    def _measures(self, score: Score) -> dict[str, float]:
        if not score.rows:
            return {}
        return {
            "hold_out_accuracy": score.accuracy,
            "hold_out_accuracy_personal": self._score(is_personal=True).accuracy,
            "release_accuracy": self._release.accuracy,
        }

    def _score(self, *, is_personal: bool = False) -> Score:
        """Return the score on the hold-out, with or without the correction by the local prior."""
        rows = self._private.hold_out
        if not len(rows.labels):
            return Score(0, 0)
        logits = self._tail.logits(rows.features)
        if is_personal:
            logits = correct(logits, log_prior(self._private.training.labels, rows.classes))
        return Score(int((logits.argmax(axis=1) == rows.labels).sum()), len(rows.labels))

    # What is kept.

    def _keep(self, *, is_warm: bool, trained: Trained | None) -> None:
        """The file first: what the model says must never be ahead of what a restart would find."""
        state = self._session.state
        if self._path is not None:
            checkpoints.save(self._path, Checkpoint.of(self._bundle, state, is_warm=is_warm, trained=trained))
        self._is_warm, self._trained = is_warm, trained
        self._tail.load(state.theta)
        self._publish(state.theta)

    def _restore(self, state: OptimizerState) -> None:
        self._session.state = state
        self._tail.load(state.theta)

    def _resume(self) -> None:
        """Go on from the checkpoint. One that is damaged, or of another bundle, costs what was learned and no more."""
        try:
            found = checkpoints.load(self._path) if self._path is not None else None
            if found is not None and found.bundle == self._bundle:
                self._restore(found.state())
                self._is_warm, self._trained = found.is_warm, found.trained
                self._publish(self._session.state.theta)
        except (DigestError, DecodeError, ThetaError) as error:
            log.error("begun anew from the bundle: %s", error)  # noqa: TRY400 - the line says it all
