"""Models of virtual devices in other processes, so that one fleet trains on every processor.

    Simulation --jobs--> lane 0: SharedModels, cores of devices 0, 2, 4 ...
               --jobs--> lane 1: SharedModels, cores of devices 1, 3, 5 ...

A core lives in one lane, and a lane does what it is asked in the order of asking. The answers to a turn's jobs are
delivered before the broker moves again, so every device sees what it would see with its core in this process: the same
bytes in the same order.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

from edge_agent.jobs import Answer, Job
from edge_agent.worker import Worker
from edge_agent.worker_core import WorkerCore
from fd_runtime.artifacts import PublicSet
from fd_runtime.models.model import F32, Features
from fleet_sim.federation.cores import Core, CorePlan, Deliver
from fleet_sim.federation.shared_models import SharedModels
from fleet_sim.processes import end_with_parent, interrupts_held_back

R = TypeVar("R")


class Lanes:
    """`cores.Cores` in `count` processes. Use as a context manager."""

    def __init__(self, public: PublicSet, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy sessions that are open
        self._lanes = [ProcessPoolExecutor(1, context, initializer=_begin, initargs=(public,)) for _ in range(count)]
        self._next = itertools.cycle(self._lanes)
        self._homes: dict[str, ProcessPoolExecutor] = {}
        self._jobs: list[tuple[Deliver, LaneCore, Future[Answer]]] = []

    def __enter__(self) -> Lanes:
        with interrupts_held_back():
            for lane in self._lanes:
                lane.submit(os.getpid)  # starts the process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.shutdown(cancel_futures=True)

    @property
    def pids(self) -> list[int]:
        """The processes, for those who measure them."""
        return [lane.submit(os.getpid).result() for lane in self._lanes]

    def open(self, plan: CorePlan) -> LaneCore:
        if plan.device not in self._homes:
            self._homes[plan.device] = next(self._next)
        return LaneCore(plan, self._homes[plan.device])

    def worker(self, core: Core, deliver: Deliver) -> Worker:
        assert isinstance(core, LaneCore)
        return _LaneWorker(core, deliver, self._jobs)

    def settle(self) -> None:
        jobs = self._jobs.copy()
        self._jobs.clear()
        for deliver, core, answer in jobs:
            deliver(core.result(answer))


class LaneCore:
    """A core in a lane, which opens it and goes on meanwhile."""

    def __init__(self, plan: CorePlan, lane: ProcessPoolExecutor) -> None:
        self._device, self._lane = plan.device, lane
        self._opened = lane.submit(_open, plan)

    def handle(self, job: Job) -> Answer:
        return self.result(self.begin(job))

    def logits(self, features: Features) -> F32:
        return self.result(self._lane.submit(_logits, self._device, features))

    def begin(self, job: Job) -> Future[Answer]:
        return self._lane.submit(_handle, self._device, job)

    def result(self, future: Future[R]) -> R:
        """Return what the lane answers; what went wrong in the opening is raised here."""
        self._opened.result()
        return future.result()


class _LaneWorker:
    """An `edge_agent.worker.Worker` whose answers come with `Lanes.settle`."""

    def __init__(self, core: LaneCore, deliver: Deliver, jobs: list[tuple[Deliver, LaneCore, Future[Answer]]]) -> None:
        self._core, self._deliver, self._jobs = core, deliver, jobs

    def submit(self, job: Job) -> None:
        self._jobs.append((self._deliver, self._core, self._core.begin(job)))

    def close(self) -> None:
        """The lane goes on for others."""


# In a lane.

_cores: dict[str, WorkerCore] = {}
_models: list[SharedModels] = []


def _begin(public: PublicSet) -> None:
    end_with_parent()
    _models.append(SharedModels(public))


def _open(plan: CorePlan) -> None:
    _cores[plan.device] = _models[0].open(plan)


def _handle(device: str, job: Job) -> Answer:
    return _cores[device].handle(job)


def _logits(device: str, features: Features) -> F32:
    return _cores[device].logits(features)
