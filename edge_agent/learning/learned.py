"""The personal weights of a bundle on one device: held by a train session and a tail, kept in a file.

    keep       the checkpoint first, then the tail: what the model says is never ahead of what a restart would find
    fit        a training, resumable: its progress lies in a file of its own until its checkpoint is written
    all_or_nothing   whatever goes wrong inside, the weights are as before

Two `Learned` may share one model, each with weights of its own (`privacy.learner`): whoever is used `take`s it first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Checkpoint, Progress, array_sha256
from edge_agent.round.events import Refreshed, Trained
from edge_agent.training.between import Between
from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.identity import sha256
from fd_runtime.files import remove_leftovers
from fd_runtime.fitting import FitProgress, FitReport, FitTerms, LabelledRows, ProbeRows, TrainingDivergedError, fit
from fd_runtime.models.model import F32, Features, OptimizerState, ThetaError
from fd_runtime.models.opening import LoadedModel

log = logging.getLogger("edge-agent")


def private_path(path: Path) -> Path:
    """Return where what is learned under privacy terms is kept, beside what is learned without them."""
    return path.with_name(f"{path.name}-private")


def spoke_privately(path: Path) -> bool:
    """Whether the device trained last under privacy terms. No promise rests on that: a round says which weights speak.

    Args:
        path: of what is learned without them.
    """
    private = private_path(path)
    if not private.exists():
        return False
    return not path.exists() or private.stat().st_mtime_ns > path.stat().st_mtime_ns


class Learned:
    """One lineage of weights.

    Args:
        model: freshly opened, with the bundle's own theta.
        bundle: its digest.
        path: of the checkpoint; None = nothing is kept.
        between: what happens between two steps.
        publish: takes the parameters of each training that was kept.
        fresh: the bundle's own state, where somebody has taken the model's session elsewhere already.

    Attributes:
        state: the weights, and the optimizer's memory.
        has_learned: they are others than the bundle's, as far as a checkpoint tells.
        is_warm: private rows have been trained on.
        trained: how the last training on a consensus ended.
        refreshed: how the last one on changed private rows did.
        charge: digest (hex) of what paid for these weights; empty: nobody did.
    """

    def __init__(
        self,
        model: LoadedModel,
        bundle: bytes,
        path: Path | None,
        between: Between,
        *,
        publish: Callable[[F32], None] = lambda theta: None,  # noqa: ARG005 - names what it is given
        fresh: OptimizerState | None = None,
    ) -> None:
        self.session, self.tail = model.train_session, model.tail
        self._bundle, self._path, self._between, self._publish = bundle, path, between, publish
        self.has_learned = False
        self.state = fresh or model.train_session.state
        self.is_warm, self.charge = False, ""
        self.trained: Trained | None = None
        self.refreshed: Refreshed | None = None
        self._resume()

    def take(self) -> None:
        """Put these weights into session and tail, where others may have been."""
        if self.session.state is not self.state:
            self.restore(self.state)

    def logits(self, features: Features) -> F32:
        """Return what the model says with these weights now: float32 [n, classes]."""
        self.take()
        return self.tail.logits(features)

    @contextmanager
    def all_or_nothing(self) -> Iterator[OptimizerState]:
        """Yield the state before; put it back if anything is raised inside."""
        self.take()
        before = self.state
        try:
            yield before
        except BaseException:
            self.restore(before)
            raise

    def restore(self, state: OptimizerState) -> None:
        """Go back to `state`."""
        self.state = self.session.state = state
        self.tail.load(state.theta)

    def keep(
        self,
        *,
        is_warm: bool,
        trained: Trained | None,
        refreshed: Refreshed | None = None,
        charge: str | None = None,
    ) -> None:
        """Make the session's state durable, then let the model speak with it. What is None stays as it was.

        Raises:
            OSError: it is not durable; the model speaks as before.
        """
        state = self.session.state
        refreshed = self.refreshed if refreshed is None else refreshed
        charge = self.charge if charge is None else charge
        if self._path is not None:
            record = Checkpoint.of(
                self._bundle,
                state,
                is_warm=is_warm,
                trained=trained,
                refreshed=refreshed,
                charge=charge,
            )
            checkpoints.save(self._path, record)
            self._forget_progress()
        self.is_warm, self.trained, self.refreshed, self.charge = is_warm, trained, refreshed, charge
        self.state, self.has_learned = state, True
        self.tail.load(state.theta)
        self._publish(state.theta)

    # Trainings that may be cut short.

    def fit(
        self,
        private: LabelledRows | None,
        probes: ProbeRows | None,
        terms: FitTerms,
        seed: bytes,
    ) -> FitReport:
        """Train as `fd_runtime.fitting.fit` does, from where an earlier attempt at the same training was cut short.

        Args:
            private: rows for the cross-entropy.
            probes: rows for the distillation.
            terms: how to train.
            seed: what the order of rows is drawn from.

        Raises:
            TrainingDivergedError: the session's state is no good.
            BrokenOffError, DeferredError, OSError: as `Between.after_step`.
        """
        read = _digest_of(self.session.state, private, probes)
        what = sha256(sha256(seed) + sha256(repr(terms).encode()) + read)
        begun = self.progress(what)
        losses = begun.loss_of_each_step() if begun is not None else ()
        if begun is not None:
            self.session.state = begun.state()
        rng = np.random.default_rng(int.from_bytes(sha256(seed)[:8], "big"))

        def look(progress: FitProgress) -> bool:
            self.after_step(lambda: Progress.of(what, progress.steps, self.session.state, progress.losses))
            return False

        self._between.begin()
        try:
            return fit(
                self.session,
                private,
                probes,
                terms,
                rng,
                should_stop=look,
                reference=self.state.theta,
                losses=losses,
            )
        except TrainingDivergedError:
            self._forget_progress()
            raise

    def begin(self) -> None:
        """Tell those who look between steps that a training begins."""
        self._between.begin()

    def after_step(self, progress: Callable[[], Progress]) -> None:
        """Do what is due between two steps; raises as `Between.after_step`."""

        def save() -> None:
            if self._progress_path is not None:
                checkpoints.save(self._progress_path, progress())

        self._between.after_step(checkpoints.size_of(self.session.state), save)

    def progress(self, what: bytes) -> Progress | None:
        """Return how far the training `what` has come; None: it has not begun, or that is lost."""
        found = None
        with suppress(DigestError, DecodeError):
            found = checkpoints.load_record(self._progress_path, Progress) if self._progress_path is not None else None
        if found is None or found.what != what:
            return None
        log.info("a training goes on after %d steps", found.done)
        return found

    def _forget_progress(self) -> None:
        if self._progress_path is not None:
            with suppress(FileNotFoundError):
                self._progress_path.unlink()

    @property
    def _progress_path(self) -> Path | None:
        return None if self._path is None else self._path.with_name(f"{self._path.name}.progress")

    def _resume(self) -> None:
        """Go on from the checkpoint. One that is damaged, or of another bundle, costs what was learned and no more."""
        for path in filter(None, (self._path, self._progress_path)):
            with suppress(OSError):  # a disk that cannot be written to: the next start
                remove_leftovers(path.parent, path.name)
        try:
            found = checkpoints.load(self._path) if self._path is not None else None
            if found is not None and found.bundle == self._bundle:
                self.restore(found.state())
                self.is_warm, self.trained, self.refreshed = found.is_warm, found.trained, found.refreshed
                self.charge, self.has_learned = found.charge, True
        except (DigestError, DecodeError, ThetaError) as error:
            log.error("begun anew from the bundle: %s", error)  # noqa: TRY400 - the line says it all


def _digest_of(state: OptimizerState, private: LabelledRows | None, probes: ProbeRows | None) -> bytes:
    """Return the identity of everything that a fit reads."""
    arrays = [state.theta, *(state.slots[name] for name in sorted(state.slots)), np.array(state.step)]
    if private is not None:
        arrays += [private.features, private.labels]
    if probes is not None:
        arrays += [probes.features, probes.targets, *([] if probes.weight is None else [probes.weight])]
    return sha256(b"".join(f"{array.dtype.str} {array.shape}\n".encode() + array_sha256(array) for array in arrays))


class Speaker:
    """Who keeps a lineage of weights, and speaks with it."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned

    def logits(self, features: Features) -> F32:
        """Return what the model says now: float32 [n, classes]."""
        return self._learned.logits(features)

    @property
    def theta(self) -> F32:
        return self._learned.state.theta

    @property
    def has_learned(self) -> bool:
        """Whether the weights are others than the bundle's."""
        return self._learned.has_learned
