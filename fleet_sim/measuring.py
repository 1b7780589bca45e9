"""What a table reports of a federation, asked of its real parts while they stand still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker_server.student import StudentWeights
from fleet_sim.baselines.factory_model import accuracy
from fleet_sim.federation.parties import Device, Server
from fleet_sim.lab import Hits, Lab, own_shares
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples


@dataclass(frozen=True, slots=True)
class RoundResult:
    """Where everyone stands after a round; accuracies in 0..1, NaN where nobody was asked.

    Attributes:
        number: of the round.
        consensus_sha256: of what it published.
        student: the server's model, on test.
        clients: mean over the devices asked of each one's own model, on test.
        own: share of all their kept-back own rows that they get right, each corrected by its local prior.
        own_uncorrected: the same without the correction.
        sent_bytes, received_bytes: mean over honest devices since the start, packets as they lie on the wire.
        heard: devices whose contributions came in time.
        seconds: of simulated time since the start; NaN where nothing takes time.
        joules: mean over devices since the start; NaN likewise.
    """

    number: int
    consensus_sha256: bytes
    student: float
    clients: float
    own: float
    own_uncorrected: float
    sent_bytes: float
    received_bytes: float
    heard: float = float("nan")
    seconds: float = float("nan")
    joules: float = float("nan")


@dataclass(frozen=True, slots=True)
class Observer:
    """Asks without touching: nothing that it does changes what comes next.

    Attributes:
        lab: of the world.
        scenario: what is played, and how closely it is looked at.
        seed: draws whom to ask, where not all are.
    """

    lab: Lab
    scenario: Scenario
    seed: int

    def look(self, server: Server, honest: Sequence[Device]) -> RoundResult:
        """Return where the parties stand; the server must have made a consensus."""
        consensus = server.aggregator.state.consensus
        assert consensus is not None
        number, test = consensus.round.number, self.lab.world.test
        is_due = number % self.scenario.measuring.every == 0 or number == self.scenario.rounds
        asked = self._drawn(honest) if is_due else []
        own, own_uncorrected = own_shares([self._own_hits(device) for device in asked])
        sent, received = server.broker.sent_bytes, server.broker.received_bytes
        return RoundResult(
            number=number,
            consensus_sha256=consensus.sha256,
            student=self._student(server, test) if is_due else float("nan"),
            clients=_mean([self._client(device, test) for device in asked]),
            own=own,
            own_uncorrected=own_uncorrected,
            sent_bytes=_mean([sent[device.id] for device in honest]),
            received_bytes=_mean([received[device.id] for device in honest]),
        )

    def _drawn(self, honest: Sequence[Device]) -> list[Device]:
        """Return the same devices at every look."""
        count = self.scenario.measuring.devices or len(honest)
        drawn = np.random.default_rng([self.seed, 6]).permutation(len(honest))[:count]
        return [honest[index] for index in sorted(drawn)]

    def _student(self, server: Server, samples: Samples) -> float:
        student = server.aggregator.state.student
        if student is None or not student.weights:
            return float("nan")
        weights = StudentWeights.from_bytes(server.store.blob(student.weights))
        family = self.scenario.models.student
        return self.lab.factory_model(family).accuracy(weights.state.theta, self.lab.rows(family, samples))

    def _client(self, device: Device, samples: Samples) -> float:
        rows = self.lab.rows(device.profile.family, samples)
        return accuracy(device.core.logits(rows.features), rows)

    def _own_hits(self, device: Device) -> Hits:
        return self.lab.own_hits(device.profile.family, device.number, lambda rows: device.core.logits(rows.features))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
