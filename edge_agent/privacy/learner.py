"""A device's model under privacy terms: private rows are read once in a privacy period, everything else is free.

    ledger: charge --> DP-SGD over all private rows --> checkpoint --> ledger: spent       once in a period
    consensus + probes --> training on probes alone --> checkpoint                         every round, costs nothing

These weights are a lineage of their own, in a file of their own: what was ever trained on private rows without a charge
never comes into it. There is no hold-out, so all rows train; a training on a consensus is judged by what is public: it
is put back where the device agrees clearly less with the consensus than before. Nothing holds the weights to those of
the private training: a proximal pull to them cost accuracy at every strength (docs/agent/privacy.md).

    killed before the charge is durable     nothing was trained, the next attempt charges
    killed while it trains                  the same charge, the same noise, from the last saved step
    killed between checkpoint and `spent`   the weights name their charge: it is only noted
    rows or bundle have changed meanwhile   the same charge, other noise, from the first step: nothing was published yet
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.learning.acceptance import Score, is_acceptable
from edge_agent.learning.checkpoint import Progress
from edge_agent.learning.learned import Learned, Speaker
from edge_agent.privacy.ledger import Entry, Ledger, LedgerError
from edge_agent.privacy.limits import PrivacyRefusedError, Spent, charge_for
from edge_agent.privacy.noise import NoiseStream
from edge_agent.privacy.saying import AGREEMENT, CLOCK_UNSET, EPSILON_SPENT, LEDGER_DAMAGED, WEIGHTS_LOST
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.privacy.training import (
    PrivatePlan,
    PrivateTrainingDivergedError,
    digest_of,
    train_privately,
)
from edge_agent.round.events import Trained
from edge_agent.training.between import Between
from edge_agent.training.memory import batch_within, rows_within
from edge_agent.training.sensors import clock_is_set
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.terms import PrivacyTerms, TrainingTerms
from fd_runtime.fitting import FitTerms, LabelledRows, ProbeRows
from fd_runtime.models.model import F32, OptimizerState, PrivateTrainSession
from fd_runtime.models.opening import LoadedModel

DISAGREES = "disagrees"
"""Why a training was not accepted."""
_MOST_ROWS = 4096

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Purse:
    """What private trainings are paid from.

    Attributes:
        ledger: of the device.
        own: its owner's terms.
        open_step: opens the bundle's clipping graph; its memory is let go after each training.
        problem: a word of `saying` that stands whatever is asked, such as that there is no such graph.
        clock: UTC seconds.
    """

    ledger: Ledger
    own: PrivacySettings
    open_step: Callable[[], PrivateTrainSession]
    problem: str = ""
    clock: Callable[[], float] = time.time


class PrivateLearner(Speaker):
    """The trainable part of a bundle on one device, under privacy terms.

    Args:
        model: the opened bundle, shared with the learner without terms.
        bundle: its digest.
        fresh: the bundle's own state.
        rows: all of the device's, perhaps none.
        path: of the checkpoint; None = nothing is kept.
        purse: what trainings are paid from; None: the device has no private rows and never will have in this life.
        seed: what the order of probes is drawn from, beside what is learned.
        between: what happens between two steps.
        memory_mb: most of a step's tensors; 0 = no bound.
        publish: takes the parameters of each training that was kept.
    """

    def __init__(
        self,
        model: LoadedModel,
        bundle: bytes,
        fresh: OptimizerState,
        rows: LabelledRows,
        path: Path | None,
        *,
        purse: Purse | None,
        seed: bytes,
        between: Between | None = None,
        memory_mb: float = 0.0,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
    ) -> None:
        super().__init__(Learned(model, bundle, path, between or Between(), publish=publish, fresh=fresh))
        self._bundle, self._rows, self._purse, self._seed = bundle.hex(), rows, purse, seed
        self._batch_rows = batch_within(model.manifest, memory_mb)
        self._part_rows = rows_within(model.manifest, memory_mb, _MOST_ROWS)

    def renew(self, rows: LabelledRows) -> None:
        """Go on with other private rows; the next private training reads them."""
        self._rows = rows

    def check_weights(self) -> None:
        """Refuse to speak where this period's training is over and its weights are lost.

        Raises:
            PrivacyRefusedError: so.
        """
        if self._purse is None:
            return
        try:
            entries = self._purse.ledger.entries()
        except LedgerError as error:
            raise PrivacyRefusedError(LEDGER_DAMAGED) from error
        standing = Spent.within(self._purse.own.period_s, entries, self._purse.clock(), self._bundle).standing
        if standing is not None and standing.digest != self._learned.charge:
            raise PrivacyRefusedError(WEIGHTS_LOST)

    def warm_up(self, terms: PrivacyTerms) -> None:
        """Train on private rows, if this period's training has not been done.

        Raises:
            PrivacyRefusedError: the terms or the ledger forbid it; nothing was charged.
            BrokenOffError, DeferredError, OSError: it is to be gone on with.
        """
        if self._purse is None:
            return
        try:
            entry = self._entry(self._purse, terms)
            if entry.digest != self._learned.charge:
                self._train_privately(self._purse, entry)
            self._purse.ledger.close_charge(entry, self._bundle, sha256(self._learned.state.theta.tobytes()))
        except LedgerError as error:
            log.error("no private training: %s", error)  # noqa: TRY400 - the line says it all
            raise PrivacyRefusedError(LEDGER_DAMAGED) from error

    def train(
        self,
        consensus_sha256: bytes,
        probes: ProbeRows,
        temperature: float,
        terms: TrainingTerms,
    ) -> Trained:
        """Learn from a consensus on public probes alone, and return how it ended.

        Raises:
            TrainingDivergedError, OSError: nothing has changed.
            BrokenOffError, DeferredError: likewise.
        """
        learned, last = self._learned, self._learned.trained
        if last is not None and last.consensus_sha256 == consensus_sha256:
            return last
        with learned.all_or_nothing() as before:
            earlier = self._agreement(before.theta, probes)
            fit_terms = FitTerms(
                terms.epochs,
                batch_rows=self._batch_rows,
                learning_rate=terms.learning_rate,
                temperature=temperature,
                probe_weight=terms.probe_weight,
            )
            report = learned.fit(None, probes, fit_terms, self._seed + consensus_sha256)
            agreement = self._agreement(learned.session.state.theta, probes)
            metrics = {
                "loss": report.epoch_losses[-1],
                "steps": float(report.steps),
                AGREEMENT: agreement.accuracy,
            }
            is_accepted = is_acceptable(agreement, earlier)
            if not is_accepted:
                learned.restore(before)
            why = "" if is_accepted else DISAGREES
            trained = Trained(consensus_sha256, is_accepted, why, metrics, is_private=True)
            learned.keep(is_warm=learned.is_warm, trained=trained)
        return trained

    def _entry(self, purse: Purse, terms: PrivacyTerms) -> Entry:
        """Return the charge of this period's training; make it where there is none."""
        entries, now_s = purse.ledger.entries(), purse.clock()
        if self._learned.charge:
            purse.ledger.charge_of(self._learned.charge)
        spent = Spent.within(purse.own.period_s, entries, now_s, self._bundle, purse.problem)
        if refusal := spent.refusal(terms, purse.own):
            raise PrivacyRefusedError(refusal)
        standing = spent.standing
        if standing is None:
            for entry in entries:
                if entry.is_open:  # of an earlier period: to train by it now would be free in this one
                    purse.ledger.abandon(entry)
            if not clock_is_set(now_s):
                raise PrivacyRefusedError(CLOCK_UNSET)
            purse.open_step()  # a graph that does not open must not cost anything
            try:
                return purse.ledger.charge(charge_for(terms, self._bundle, now_s))
            except InvalidValueError as error:
                raise PrivacyRefusedError(EPSILON_SPENT) from error
        if not standing.is_open and standing.digest != self._learned.charge:
            raise PrivacyRefusedError(WEIGHTS_LOST)
        return standing

    def _train_privately(self, purse: Purse, entry: Entry) -> None:
        learned = self._learned
        key, terms = purse.ledger.key(entry), entry.charge.terms
        with learned.all_or_nothing() as before:
            session = purse.open_step()
            session.state = OptimizerState.fresh(before.theta, before.slots.keys())
            what = sha256(bytes.fromhex(entry.digest) + digest_of(self._rows) + sha256(before.theta.tobytes()))
            begun = learned.progress(what)
            if begun is not None:
                session.state = begun.state()
            learned.begin()
            try:
                train_privately(
                    session,
                    self._rows,
                    PrivatePlan(terms, entry.charge.noise_multiplier),
                    NoiseStream(key, what),
                    done=begun.done if begun is not None else 0,
                    part_rows=self._part_rows,
                    after_step=lambda done: learned.after_step(lambda: Progress.of(what, done, session.state)),
                )
                theta = session.state.theta
            except PrivateTrainingDivergedError as error:
                # The same noise would lead there again, and other noise is not paid for.
                log.error("%s: this period goes on without", error)  # noqa: TRY400 - the line says it all
                theta = before.theta
            learned.session.state = OptimizerState.fresh(theta, before.slots.keys())
            learned.keep(is_warm=True, trained=learned.trained, charge=entry.digest)

    def _agreement(self, theta: F32, probes: ProbeRows) -> Score:
        """Return on how many probes these weights say what the consensus says."""
        self._learned.tail.load(theta)
        said = self._learned.tail.logits(probes.features).argmax(axis=1)
        return Score(int((said == probes.targets.argmax(axis=1)).sum()), len(said))
