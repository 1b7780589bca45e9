"""Watches a running fleet from outside: reads what the programs have on their disks and measures it on test data.

No program is given a test label: what a device learned is read from its checkpoint, the student from the server's
store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from broker_server.core.federation import Federation
from broker_server.core.trust import TrustTable
from broker_server.journal import Journal
from broker_server.student import StudentWeights
from edge_agent.learning import checkpoint as checkpoints
from fd_runtime.models.model import F32
from fd_runtime.storage.store import Store, StoreError
from fleet_sim.lab import Hits, Lab, own_shares
from fleet_sim.real.fleet import FEDERATION, Fleet
from fleet_sim.real.wire_meter import Traffic
from fleet_sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Reading:
    """A device after one training: `overall` is its accuracy on test in 0..1, `own` how it does on its own kind."""

    overall: float
    own: Hits


@dataclass(slots=True)
class Observer:
    """What has been seen so far.

    Attributes:
        rounds: round -> digest of its consensus; two rounds may come to the same.
        clients: device -> consensus digest -> reading.
        student: round -> accuracy on test.
        state: the server's, as of the last look; None before it has begun.
        traffic: round -> bytes of all devices together when its consensus was first seen.
        trust: round -> the trust that counted in it.
    """

    scenario: Scenario
    lab: Lab
    fleet: Fleet
    rounds: dict[int, bytes] = field(default_factory=dict)
    clients: dict[str, dict[bytes, Reading]] = field(default_factory=dict)
    student: dict[int, float] = field(default_factory=dict)
    state: Federation | None = None
    traffic: dict[int, Traffic] = field(default_factory=dict)
    trust: dict[int, TrustTable] = field(default_factory=dict)

    def prepare(self) -> None:
        """Extract all features beforehand: a look must be shorter than a round."""
        families, world = self.scenario.models.families, self.lab.world
        for family in {*families, self.scenario.models.student}:
            self.lab.rows(family, world.test)
        for index, own in enumerate(world.own):
            self.lab.rows(families[index % len(families)], own)

    def look(self) -> None:
        """Read every disk once and measure what is new."""
        self._look_at_server()
        for index, device in enumerate(self.fleet.devices):
            self._look_at_device(index, device)

    @property
    def is_complete(self) -> bool:
        """Whether every round has been learnt by the student and by all devices."""
        last = self.scenario.rounds
        return last in self.student and all(last in self.by_round(device) for device in self.fleet.devices)

    def by_round(self, device: str) -> dict[int, Reading]:
        """Return a device's readings by round number; where two rounds came to the same, it learned from the first."""
        readings = self.clients.get(device, {})
        return {number: readings[digest] for number, digest in self.rounds.items() if digest in readings}

    def client_curve(self) -> tuple[float, ...]:
        """Return the mean client after each round; a device that skipped a round keeps its last reading."""
        readings = [self.by_round(device) for device in self.fleet.devices]
        curves = [self._filled({number: reading.overall for number, reading in one.items()}) for one in readings]
        return tuple(float(np.mean(values)) for values in zip(*curves, strict=True))

    def student_curve(self) -> tuple[float, ...]:
        return tuple(self._filled(self.student))

    def own_accuracy(self) -> float:
        """Return the share of all kept-back rows that their device gets right at the end."""
        readings = [self.by_round(device) for device in self.fleet.devices]
        return own_shares([one[max(one)].own for one in readings])[0]

    def _filled(self, accuracies: dict[int, float]) -> Iterator[float]:
        last = accuracies[min(accuracies)]
        for number in range(1, self.scenario.rounds + 1):
            last = accuracies.get(number, last)
            yield last

    def _look_at_server(self) -> None:
        """Before its tables are there, or where a blob was replaced between two reads, the next look sees more."""
        with suppress(StoreError), Store.view(self.fleet.server_store) as store:
            self.state = Journal(store, FEDERATION).replay()
            self._note_consensus(self.state, store)
            self._measure_student(self.state, store)

    def _note_consensus(self, state: Federation, store: Store) -> None:
        if state.consensus is None or (number := state.consensus.round.number) in self.rounds:
            return
        self.trust[number] = TrustTable.from_bytes(store.blob(state.trust), len(self.lab.world.task.classes))
        self.rounds[number] = state.consensus.sha256
        self.traffic[number] = self._all_traffic()

    def _measure_student(self, state: Federation, store: Store) -> None:
        student = state.student
        if student is None or not student.weights or student.round.number in self.student:
            return
        weights = StudentWeights.from_bytes(store.blob(student.weights))
        self.student[student.round.number] = self._overall(self.scenario.models.student, weights.state.theta)

    def _look_at_device(self, index: int, device: str) -> None:
        checkpoint = checkpoints.load(self.fleet.checkpoint(device))
        if checkpoint is None or checkpoint.trained is None:
            return
        readings = self.clients.setdefault(device, {})
        if checkpoint.trained.consensus_sha256 in readings:
            return
        theta = checkpoint.state().theta
        families = self.scenario.models.families
        family = families[index % len(families)]
        answers = partial(self.lab.factory_model(family).logits, theta)
        readings[checkpoint.trained.consensus_sha256] = Reading(
            self._overall(family, theta), self.lab.own_hits(family, index, answers)
        )

    def _overall(self, family: str, theta: F32) -> float:
        return self.lab.factory_model(family).accuracy(theta, self.lab.rows(family, self.lab.world.test))

    def _all_traffic(self) -> Traffic:
        return sum((self.fleet.meter.traffic(device) for device in self.fleet.devices), Traffic())
