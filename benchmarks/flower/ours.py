"""Our side of the comparison: the same federation of real processes, Mosquitto with TLS, `edge-agent`s."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gauges import Peak, quiet_tree

from broker_server.core.federation import Federation
from broker_server.records.chronicle import Chronicle
from fd_protocol.messages import Kind
from fd_runtime.storage.store import Store
from fleet_sim.factory import Equipment, equip, load_equipment
from fleet_sim.lab import Lab
from fleet_sim.real.fleet import FEDERATION, Fleet, Stage, running_fleet
from fleet_sim.real.observer import Observer
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples, World
from flower.measured import Alone, Mark, Played, Recovery, Side, watch_idle

PATIENCE_S = 900.0
_ROUND_S = 600
_PAUSE_S = 0.5
_LOOK_S, _SHORT_LOOK_S = 0.1, 0.02
_KILLED_AFTER = 2
_FLOOR_PROBES, _FLOOR_ROWS = 32, 20


@dataclass(frozen=True, slots=True)
class Ours:
    """What is played; `folder` is new and takes everything."""

    scenario: Scenario
    world: World
    seed: int
    folder: Path

    def play(self, name: str, scenario: Scenario) -> Played:
        """Play a scenario with these devices, and measure accuracies as they come."""
        first = self._after_one_round(name, scenario, self.world)
        with self._fleet(name, scenario, self.world) as observer:
            marks = first, _play(observer)
            rounds, clients = scenario.rounds, scenario.devices
            own = observer.own_accuracy()
            return Played(observer.student_curve(), observer.client_curve(), own, marks, rounds, clients)

    def play_floor(self, rounds: int) -> Played:
        """One device: few probes, one epoch over a few rows, so that little more than the runtime is left."""
        scenario, world = self._floor(rounds)
        first = self._after_one_round("floor", scenario, world)
        with self._fleet("floor", scenario, world) as observer:
            return Played((), (), float("nan"), (first, _play(observer)), rounds, 1)

    def alone(self, rounds: int, minutes: float) -> Alone:
        """One device: some rounds of the CNN, then nothing to do."""
        scenario, world = self._one(replace(self.scenario, rounds=rounds)), _first(self.world)
        first = self._after_one_round("alone", scenario, world)
        with self._fleet("alone", scenario, world) as observer:
            with Peak(observer.fleet.programs[1].pid, look_s=_SHORT_LOOK_S) as peak:  # a round lasts half a second
                played = Played((), (), float("nan"), (first, _play(observer)), rounds, 1)
            return Alone(played, watch_idle(_side(observer.fleet), minutes), peak.mb)

    def recover(self, rounds: int) -> Recovery:
        """Kill the server inside a round, with contributions in, and see what becomes of them.

        One device is held back, or the round would be over before anyone could kill anything.
        """
        scenario = replace(self.scenario, rounds=rounds)
        with self._fleet("recovery", scenario, self.world) as observer:
            fleet = observer.fleet
            _watch(observer, lambda: _KILLED_AFTER in observer.rounds)
            with _held_back(fleet.programs[-1].pid):
                _watch(observer, lambda: _is_inside(observer.state))
                fleet.programs[0].kill()
                number, stored = _on_disk(observer)
                fleet.programs[0].start_again()
                begin_s = time.monotonic()
            _watch(observer, lambda: number in observer.rounds)
            next_round_s = time.monotonic() - begin_s
            assert observer.state is not None
            counted = _counted(fleet.server_store, observer.state.epoch, number)
            missing = [device for device, digest in stored.items() if counted.get(device) != digest]
            lost = f"{len(missing)} of {len(stored)} stored contributions"
            _watch(observer, lambda: observer.is_complete)
            return Recovery("the round went on and closed", next_round_s, lost, "none")

    def _after_one_round(self, name: str, scenario: Scenario, world: World) -> Mark:
        """Play one round; in a longer federation the second has begun before the slowest has learnt the first."""
        with self._fleet(f"{name}-first", replace(scenario, rounds=1), world) as observer:
            return _play(observer)

    @contextmanager
    def _fleet(self, name: str, scenario: Scenario, world: World) -> Iterator[Observer]:
        """A fleet, and who watches it."""
        equipment = self._equipment(world, scenario)
        stage = Stage(scenario, world, equipment, self.folder / name, round_s=_ROUND_S, pause_s=_PAUSE_S)
        with running_fleet(stage, embedded_broker=False) as fleet:
            observer = Observer(scenario, Lab(world, equipment.bundles), fleet)
            observer.prepare()
            yield observer

    def _equipment(self, world: World, scenario: Scenario) -> Equipment:
        """Build what leaves the factory, once for the same models and probes."""
        models = scenario.models
        name = f"{'every-layer' if models.every_layer_trains else 'tail'}-{len(world.probes)}"
        folder = self.folder / "factory" / name
        return load_equipment(world, models, folder) if folder.exists() else equip(world, models, self.seed, folder)

    def _one(self, scenario: Scenario) -> Scenario:
        """With one device competence has nobody to compare it with."""
        return replace(scenario, devices=1, method=replace(scenario.method, name="mean-probabilities"))

    def _floor(self, rounds: int) -> tuple[Scenario, World]:
        world = _first(self.world)
        rows = _some(world.private[0], _FLOOR_ROWS)
        world = replace(world, probes=_some(world.probes, _FLOOR_PROBES), private=(rows,))
        terms = self.scenario.training
        scenario = replace(
            self._one(self.scenario),
            rounds=rounds,
            models=replace(self.scenario.models, pretraining=None),
            training=replace(terms, epochs=1, warm_up_epochs=1),
            student=replace(self.scenario.student, epochs=1),
        )
        return scenario, world


def _some(samples: Samples, count: int) -> Samples:
    return samples.take(np.arange(count))


def _first(world: World) -> World:
    return replace(world, private=world.private[:1], own=world.own[:1])


def _side(fleet: Fleet) -> Side:
    assert fleet.broker.pid is not None
    devices = [program.pid for program in fleet.programs[1:]]
    return Side(fleet.meter, fleet.devices, devices, [fleet.programs[0].pid, fleet.broker.pid])


def _play(observer: Observer) -> Mark:
    """Return what was used until all had learnt the last round; its seconds count from now."""
    side, begin_s = _side(observer.fleet), time.monotonic()
    _watch(observer, lambda: observer.is_complete)
    return replace(side.mark(), at_s=time.monotonic() - begin_s)


def _watch(observer: Observer, claim: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not claim():
        observer.fleet.check()
        observer.look()
        if time.monotonic() > end_s:
            raise TimeoutError(f"nothing for {PATIENCE_S:.0f} s; see {observer.fleet.folder / 'logs'}")
        time.sleep(_LOOK_S)


@contextmanager
def _held_back(pid: int) -> Iterator[None]:
    """Stop a device, and let it go on afterwards."""
    pids = list(quiet_tree(pid))
    for one in pids:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in pids:
            os.kill(one, signal.SIGCONT)


def _is_inside(state: Federation | None) -> bool:
    """Whether a round is open and has heard some of its devices, not all."""
    if state is None or state.round is None:
        return False
    current = state.round
    return current.is_open and current.awaited == 1 and current.heard == current.invited - 1


def _on_disk(observer: Observer) -> tuple[int, dict[str, bytes]]:
    """Return the open round of a dead server, and the contributions on its disk: device -> digest of the payload."""
    observer.look()
    assert observer.state is not None
    current = observer.state.round
    assert current is not None
    assert current.is_open
    return current.id.number, dict(current.contributions)


def _counted(store: Path, epoch: int, number: int) -> dict[str, bytes]:
    """Return what the consensus of a round was made of."""
    with Store.view(store) as opened:
        heard = Chronicle(opened, FEDERATION).hearings(epoch, number)
    return {one.device: one.sha256 for one in heard if one.kind == Kind.CONTRIBUTION.value and one.weight}
