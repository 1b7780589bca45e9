"""A rule in a comparison: the federation that is played with it, and how student and devices stand at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from broker_server.core.trust import TrustTable
from broker_server.methods import rule_named
from broker_server.rules.voice import Voice
from broker_server.settings import MethodSettings
from broker_server.student import StudentWeights
from fd_protocol.soft_labels import soften
from fd_protocol.terms import Slice
from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import F32
from fleet_sim.baselines.factory_model import accuracy
from fleet_sim.baselines.standings import Standing, standing_of
from fleet_sim.comparison.cells import Cell
from fleet_sim.factory import Equipment
from fleet_sim.federation.parties import Device
from fleet_sim.federation.simulation import Simulation, disk_for
from fleet_sim.lab import Lab
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.calibration import calibration_error
from fleet_sim.metrics.flips import flipped_share
from fleet_sim.metrics.hearing import heard_rounds, last_voices
from fleet_sim.metrics.rounds import RoundMetrics, examine
from fleet_sim.metrics.scores import Answers, scored
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World


def play_rule(scenario: Scenario, world: World, equipment: Equipment, seed: int) -> Cell:
    """Play `scenario` to its end; its rule names the cell."""
    lab, name = Lab(world, equipment.bundles, scenario.scores.local_prior), scenario.method.name
    with disk_for(scenario) as folder:
        simulation = Simulation(scenario, world, equipment, seed, lab=lab, folder=folder)
        rounds = list(heard_rounds(simulation))
        results, trust = [result for result, _ in rounds], rounds[-1][1]
        student = (_student(name, simulation, lab, results),) if scenario.has_public_set else ()
        standings = (*student, _clients(name, simulation, lab, results))
        return Cell(seed, name, standings, last_round(simulation, world, equipment, trust))


def _student(name: str, simulation: Simulation, lab: Lab, results: list[RoundResult]) -> Standing:
    """The server's model; bytes are those of a device."""
    server, family = simulation.server, simulation.scenario.models.student
    student, test = server.aggregator.state.student, lab.rows(family, lab.world.test)
    clients = standing_of(f"{name} FD, student", results)
    curve = tuple(result.student for result in results)
    if student is None or not student.weights:
        return replace(clients, curve=curve, own=float("nan"))
    theta = StudentWeights.from_bytes(server.store.blob(student.weights)).state.theta
    logits = lab.factory_model(family).logits(theta, test)
    return replace(
        clients,
        curve=curve,
        own=float("nan"),
        calibration=_calibration(logits, test),
        flipped=_flipped(simulation, logits, test),
        scores=scored(simulation.scenario.scores, [(logits, test.labels)]),
    )


def _clients(name: str, simulation: Simulation, lab: Lab, results: list[RoundResult]) -> Standing:
    """The mean of the honest devices."""
    errors, flips, hits = [], [], defaultdict[str, list[float]](list)
    said, own = list[Answers](), list[Answers]()
    for device in simulation.honest:
        test = lab.rows(device.profile.family, lab.world.test)
        logits = device.core.logits(test.features)
        errors.append(_calibration(logits, test))
        flips.append(_flipped(simulation, logits, test))
        hits[device.profile.family].append(accuracy(logits, test))
        said.append((logits, test.labels))
        own.append(lab.own_answers(device.profile.family, device.number, partial(_says, device)))
    return replace(
        standing_of(f"{name} FD, mean client", results),
        calibration=float(np.mean(errors)),
        flipped=float(np.mean(flips)),
        families=tuple((family, float(np.mean(shares))) for family, shares in hits.items()) if len(hits) > 1 else (),
        scores=scored(simulation.scenario.scores, said, own),
    )


def _says(device: Device, rows: LabelledRows) -> F32:
    return device.core.logits(rows.features)


def _calibration(logits: F32, rows: LabelledRows) -> float:
    return calibration_error(soften(logits, 1.0), rows.labels)


def _flipped(simulation: Simulation, logits: F32, rows: LabelledRows) -> float:
    attack = simulation.scenario.attack
    return flipped_share(logits, rows.labels, attack.source, attack.target)


def last_round(simulation: Simulation, world: World, equipment: Equipment, trust: TrustTable) -> RoundMetrics:
    """Return the metrics of the round that ended last; `trust` is what counted in it."""
    ended = simulation.server.aggregator.state.round
    assert ended is not None
    voices = last_voices(simulation.server, trust)
    return metrics_of(simulation.server.settings.method, voices, ended.offer.slice, world, equipment)


def metrics_of(
    method: MethodSettings, voices: Sequence[Voice], part: Slice, world: World, equipment: Equipment
) -> RoundMetrics:
    """Return whom the rule listens to on the probes `part`.

    Nobody gains and no class is covered where the probes have no labels, or there are none.
    """
    are_probes = part.public_set == equipment.public.digest
    labels = equipment.public_probes.labels[part.start : part.start + part.count] if are_probes else None
    metrics = examine(rule_named(method.name, method.terms), voices, labels)
    return metrics if world.are_probes_labelled else replace(metrics, gains={}, classes=())
