"""One opened model per bundle for all virtual devices of a process; each device has a face of it that is its own.

    opened once     sessions of backbone, tail and train step; features of the probes
    a device's own  theta in its tail, the state of its training

What a device computes is bit for bit what it would compute with sessions of its own: they are the same graphs, opened
from the same bytes, and nothing but theta and the optimizer's vectors is exchanged between two runs.

What is deliberately absent: threads. The devices of a process take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_agent.jobs import Job
from edge_agent.learning.seen import SeenProbes
from edge_agent.worker import Worker
from edge_agent.worker_core import WorkerCore
from fd_protocol.errors import DecodeError
from fd_runtime.artifacts import PublicSet
from fd_runtime.models.model import F32, Batch, Features, OptimizerState, Tail, TrainSession, check_theta
from fd_runtime.models.opening import LoadedModel
from fleet_sim.federation.cores import Core, CorePlan, Deliver


class SharedModels:
    """`cores.Cores` in this process; jobs are done when they are settled. All devices have all the public sets."""

    def __init__(self, *publics: PublicSet) -> None:
        self._publics = {public.digest: public for public in publics}
        self._opened: dict[bytes, tuple[SharedModel, _SharedSets]] = {}
        self._jobs: list[tuple[Deliver, Core, Job]] = []

    def open(self, plan: CorePlan) -> WorkerCore:
        """See `Cores`; what a bundle needs is opened when the first device asks for it."""
        bundle = plan.bundle
        if bundle.digest not in self._opened:
            model = SharedModel(bundle.open("onnxruntime"))
            self._opened[bundle.digest] = model, _SharedSets(self._publics, model.lend())
        model, sets = self._opened[bundle.digest]
        return WorkerCore(
            model.lend(),
            sets if plan.has_public_set else None,
            plan.private,
            plan.checkpoint,
            device=plan.device,
            space=plan.space,
            purse=plan.purse.purse(bundle) if plan.purse else None,
        )

    def worker(self, core: Core, deliver: Deliver) -> Worker:
        return _PatientWorker(core, deliver, self._jobs)

    def settle(self) -> None:
        for deliver, core, job in self._jobs:
            deliver(core.handle(job))
        self._jobs.clear()


class _SharedSets:
    """`seen.Seeing` for all devices with one model; a set that was seen once stays."""

    def __init__(self, publics: Mapping[bytes, PublicSet], model: LoadedModel) -> None:
        self._publics, self._model = publics, model
        self._seen: dict[bytes, SeenProbes] = {}

    def seen(self, public_set: bytes) -> SeenProbes:
        if public_set not in self._publics:
            raise DecodeError("unknown_public_set", public_set.hex()[:16])
        if public_set not in self._seen:
            self._seen[public_set] = SeenProbes(self._publics[public_set], self._model)
        return self._seen[public_set]


class _PatientWorker:
    """An `edge_agent.worker.Worker` whose jobs wait for `SharedModels.settle`."""

    def __init__(self, core: Core, deliver: Deliver, jobs: list[tuple[Deliver, Core, Job]]) -> None:
        self._core, self._deliver, self._jobs = core, deliver, jobs

    def submit(self, job: Job) -> None:
        self._jobs.append((self._deliver, self._core, job))

    def close(self) -> None:
        """Nothing is left behind."""


class SharedModel:
    """A model that was opened once.

    Args:
        model: freshly opened, with the bundle's own theta.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._fresh = model.train_session.state
        self._tail = _SharedTail(model.tail, self._fresh.theta)

    def lend(self) -> LoadedModel:
        """Return a face as if it were freshly opened."""
        return replace(
            self._model,
            tail=_LentTail(self._tail, self._fresh.theta),
            train_session=_LentTrainSession(self._model.train_session, self._fresh),
        )


class _SharedTail:
    """Loads parameters when another theta than the last is asked for. Nobody changes a theta in place."""

    def __init__(self, tail: Tail, theta: F32) -> None:
        self._tail, self._loaded = tail, theta

    def logits(self, theta: F32, features: Features) -> F32:
        if theta is not self._loaded:
            self._tail.load(theta)
            self._loaded = theta
        return self._tail.logits(features)


class _LentTail:
    """A `model.Tail`."""

    def __init__(self, shared: _SharedTail, theta: F32) -> None:
        self._shared, self._theta = shared, theta

    def logits(self, features: Features) -> F32:
        return self._shared.logits(self._theta, features)

    def load(self, theta: F32) -> None:
        self._theta = check_theta(theta, self._theta.size)


class _LentTrainSession:
    """A `model.TrainSession`."""

    def __init__(self, session: TrainSession, state: OptimizerState) -> None:
        self._session, self._state = session, state

    @property
    def state(self) -> OptimizerState:
        return self._state

    @state.setter
    def state(self, state: OptimizerState) -> None:
        self._session.state = state  # which refuses one that does not fit
        self._state = state

    def run(self, batch: Batch, **terms: Any) -> float:
        if self._session.state is not self._state:
            self._session.state = self._state
        loss = self._session.run(batch, **terms)
        self._state = self._session.state
        return loss
