"""Flower's side of the comparison: FedAvg of the whole CNN by its own strategy, in PyTorch, as it teaches it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from gauges import Peak

from fd_protocol.layout import ThetaLayout
from fd_runtime.fitting import FitTerms
from fd_runtime.models.model import F32
from fleet_sim.baselines.standings import Bench
from fleet_sim.worlds import Samples
from flower.deployment import PATIENCE_S, Deployment, deployed
from flower.environment import PROJECT
from flower.measured import Alone, Mark, Played, Recovery, Side, watch_idle

App = Literal["app", "light", "floor"]
APP: App = "app"
"""In PyTorch, as Flower's own quickstart has it."""
LIGHT: App = "light"
"""The same without PyTorch: its clients run our train-step graph in onnxruntime."""
FLOOR: App = "floor"
"""Four numbers there and back."""
_FAILURE_S = 60.0
_KILLED_IN = 3


@dataclass(frozen=True, slots=True)
class Theirs:
    """What is played.

    Attributes:
        environment: with flwr and torch.
        bench: the world, and the family all of whose layers train: it says where all start, and measures.
        terms: of a client's training.
        folder: new; takes everything.
    """

    environment: Path
    bench: Bench
    terms: FitTerms
    folder: Path

    def play(self, app: App, rounds: int) -> Played:
        with self._deployed(f"play-{app}", app, self.bench.lab.world.private) as deployment:
            marks = self._run(deployment, app, rounds)
            thetas = [self._theta(deployment, number) for number in range(1, rounds + 1)]
        curve = tuple(self.bench.accuracy(theta) for theta in thetas)
        own = self.bench.own(lambda _: thetas[-1])
        return Played(curve, (), own, marks, rounds, len(self.bench.lab.world.private))

    def play_floor(self, rounds: int) -> Played:
        """One client: four numbers there and back."""
        with self._deployed("floor", FLOOR, self._one) as deployment:
            return Played((), (), float("nan"), self._run(deployment, FLOOR, rounds), rounds, 1)

    def alone(self, app: App, rounds: int, minutes: float) -> Alone:
        """One client: some rounds of the CNN, then nothing to do."""
        with self._deployed(f"alone-{app}", app, self._one) as deployment:
            with Peak(deployment.nodes[0].pid) as peak:
                marks = self._run(deployment, app, rounds)
            played = Played((), (), float("nan"), marks, rounds, 1)
            return Alone(played, watch_idle(_side(deployment), minutes), peak.mb)

    def recover(self, rounds: int) -> Recovery:
        """Kill the SuperLink inside round 3 of a run that does nothing but send, and see what becomes of it."""
        private = self.bench.lab.world.private
        with self._deployed("recovery", FLOOR, private) as deployment:
            run = deployment.submit(FLOOR, num_server_rounds=rounds)
            _expect(deployment.wait(_KILLED_IN - 1))
            time.sleep(1.0)
            finished = deployment.finished()
            deployment.restart_link()
            begin_s = time.monotonic()
            fate = _fate(deployment, run, finished)
            if fate.startswith("went on"):
                return Recovery(fate, time.monotonic() - begin_s, "nothing", "none")
            lost = f"the run: {finished} rounds of {rounds} are in no state that Flower goes on from"
            begin_s = time.monotonic()
            deployment.submit(FLOOR, num_server_rounds=1)
            _expect(deployment.wait(1))
            return Recovery(
                fate, time.monotonic() - begin_s, lost, "`flwr run` again; the app must load its last model itself"
            )

    @property
    def _one(self) -> tuple[Samples, ...]:
        return self.bench.lab.world.private[:1]

    def _deployed(self, name: str, app: App, private: Sequence[Samples]) -> AbstractContextManager[Deployment]:
        modules = PROJECT if app == LIGHT else None
        data, is_metered = self._data(private), name != "recovery"
        return deployed(self.folder / name, self.environment, data, modules, is_metered=is_metered)

    def _settings(self, app: App) -> dict[str, object]:
        if app == FLOOR:
            return {}
        factory = self.bench.factory
        if app == LIGHT:
            initial = self.folder / "theta.npy"
            np.save(initial, factory.theta)
        else:
            initial = self.folder / "initial.npz"
            np.savez(initial, **to_torch(factory.layout, factory.theta))
        return {
            "initial_model": str(initial),
            "local_epochs": self.terms.epochs,
            "learning_rate": self.terms.learning_rate,
            "batch_size": self.terms.batch_rows,
        }

    def _data(self, private: Sequence[Samples]) -> list[Path]:
        """Write a file for each client, and the train step beside them for those that have no PyTorch."""
        folder = self.folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save_model(self.bench.factory.train_step("momentum").model, str(folder / "train_step.onnx"))
        paths = [folder / f"node-{index}.npz" for index in range(len(private))]
        for path, rows in zip(paths, private, strict=True):
            np.savez(path, x=rows.values, y=rows.labels)
        return paths

    def _run(self, deployment: Deployment, app: App, rounds: int) -> tuple[Mark, Mark]:
        side = _side(deployment)
        deployment.submit(app, num_server_rounds=rounds, **self._settings(app))
        _expect(deployment.wait(1))
        first = side.mark()
        _expect(deployment.wait(rounds))
        return first, side.mark()

    def _theta(self, deployment: Deployment, number: int) -> F32:
        with np.load(deployment.results / f"round-{number}.npz") as arrays:
            if "theta" in arrays:
                return np.array(arrays["theta"])
            return from_torch(self.bench.factory.layout, dict(arrays))


def to_torch(layout: ThetaLayout, theta: F32) -> dict[str, F32]:
    """Return theta as a state dict: torch keeps the weights of a dense layer [outputs, inputs]."""
    values = {slot.name: theta[slot.offset : slot.offset + slot.size].reshape(slot.shape) for slot in layout.slots}
    return {name: value.T.copy() if value.ndim == 2 else value for name, value in values.items()}


def from_torch(layout: ThetaLayout, arrays: dict[str, F32]) -> F32:
    """The inverse of `to_torch`."""
    parts = [arrays[slot.name].T if len(slot.shape) == 2 else arrays[slot.name] for slot in layout.slots]
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def _side(deployment: Deployment) -> Side:
    nodes = [node.pid for node in deployment.nodes]
    return Side(deployment.meter, deployment.names, nodes, [deployment.link.pid])


def _fate(deployment: Deployment, run: str, finished: int) -> str:
    """Return what becomes of a run whose SuperLink was started again."""
    end_s = time.monotonic() + _FAILURE_S
    while time.monotonic() < end_s:
        if deployment.finished() > finished + 1:
            return "went on"
        try:
            status, details = deployment.status(run)
        except (RuntimeError, ValueError):  # the SuperLink does not answer yet
            continue
        if status.startswith("finished"):
            return f"{status} ({details})"
    return f"nothing for {_FAILURE_S:.0f} s"


def _expect(has_come: bool) -> None:  # noqa: FBT001 - read as "expect(wait(...))"
    if not has_come:
        raise TimeoutError(f"no round for {PATIENCE_S:.0f} s")
