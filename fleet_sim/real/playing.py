"""`fleet-sim run --real`: a scenario with real programs over a real broker, told in the terms of a simulation.

Both plays are of the same federation: the same bundles, rows and settings, every device invited to every round, and a
round that closes when all are in. A device answers an offer when it has learnt the consensus before it, whenever that
comes. So every consensus is the same, byte for byte, for the same seed; the clock, the network and the processes are
what a simulation leaves out, and a difference would show that it leaves out something else.

Bytes are those that cross each device's wire, TLS and acknowledgements included.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from broker_server.core.trust import TrustTable
from broker_server.journal import Journal
from fd_protocol.errors import InvalidValueError
from fd_runtime.storage.store import Store
from fleet_sim.comparison.rule_cells import metrics_of
from fleet_sim.factory import Equipment
from fleet_sim.lab import Lab, own_shares
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.hearing import voices_of
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.real.fleet import FEDERATION, Fleet, Stage, running_fleet
from fleet_sim.real.observer import Observer
from fleet_sim.real.watching import watch
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World

_SIMULATED = ("attack", "faults", "crashes", "drift", "boards", "attendance")
"""What only a simulation can do to a federation."""
_ROUND_S = 600
"""A round closes when all are in; a busy machine may take its time."""
_PAUSE_S = 0.5
"""A few looks long: small models would be rounds ahead of who measures them."""


def check_real(scenario: Scenario) -> None:
    """Refuse what real programs cannot play.

    Raises:
        InvalidValueError: so; names the key.
    """
    usual = Scenario()
    for key in _SIMULATED:
        if getattr(scenario, key) != getattr(usual, key):
            raise InvalidValueError(f"{key}: only simulated, not with --real")
    if not scenario.has_public_set:
        raise InvalidValueError("method: rules without a public set are only simulated, not played with --real")


def play_real(
    scenario: Scenario, world: World, equipment: Equipment, folder: Path, on_round: Callable[[RoundResult], None]
) -> tuple[list[RoundResult], RoundMetrics]:
    """Play with real processes, and return what `federation.Simulation` says of each round, and `last_round`.

    Args:
        scenario: what to play; see `check_real`.
        world: who holds what.
        equipment: what left the factory.
        folder: for everything that programs write; emptied first.
        on_round: told of every round, before all devices have learnt from it: what they know then is not in it.

    Raises:
        InvalidValueError: real programs cannot play this.
        BrokerError, ProgramEndedError, StalledError: they could not play it to its end.
    """
    check_real(scenario)
    shutil.rmtree(folder, ignore_errors=True)  # of a play that was cut short
    stage = Stage(scenario, world, equipment, folder, litert_device=None, round_s=_ROUND_S, pause_s=_PAUSE_S)
    with running_fleet(stage, embedded_broker=False) as fleet:
        lab = Lab(world, equipment.bundles, scenario.scores.local_prior)
        observer = Observer(scenario, lab, fleet)
        observer.prepare()
        watch(observer, fleet, lambda number: on_round(_result(observer, number)))
        metrics = _last_round(observer, fleet, world, equipment)
    return [_result(observer, number) for number in sorted(observer.student)], metrics


def _result(observer: Observer, number: int) -> RoundResult:
    """What is known now: a device that has not learnt from the round, or that nobody looked at in time, is left out."""
    devices = observer.fleet.devices
    readings = [one[number] for one in map(observer.by_round, devices) if number in one]
    own, own_uncorrected = own_shares([reading.own for reading in readings])
    traffic = observer.traffic[number]
    return RoundResult(
        number=number,
        consensus_sha256=observer.rounds[number],
        student=observer.student[number],
        clients=float(np.mean([reading.overall for reading in readings])) if readings else float("nan"),
        own=own,
        own_uncorrected=own_uncorrected,
        sent_bytes=traffic.up / len(devices),
        received_bytes=traffic.down / len(devices),
    )


def _last_round(observer: Observer, fleet: Fleet, world: World, equipment: Equipment) -> RoundMetrics:
    scenario = observer.scenario
    trust = observer.trust.get(scenario.rounds, TrustTable(len(world.task.classes)))
    with Store.view(fleet.server_store) as store:
        ended = Journal(store, FEDERATION).replay().round
        assert ended is not None
        voices = voices_of(store, FEDERATION, scenario.method.absence, ended, trust)
    return metrics_of(fleet.method(scenario, world), voices, ended.offer.slice, world, equipment)
