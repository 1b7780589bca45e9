"""Devices that claim everything and answer falsely ruin a federation that trusts, and not one that checks."""

from dataclasses import replace

import numpy as np
import pytest

from fleet_sim.attacks.table import attackers_of
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.scenario import PRESETS, AttackTerms
from fleet_sim.worlds import digits

DEVICES = 8
SCENARIO = replace(PRESETS["digits"], devices=DEVICES, rounds=6)
MANY = attackers_of(DEVICES, 0.4)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    world = digits(0, devices=DEVICES, alpha=1.0)
    world = replace(world, canaries=np.arange(0, len(world.probes), 4))
    return world, equip(world, SCENARIO.models, 0, tmp_path_factory.mktemp("equipment"))


def end_of(parts, **changes):
    *_, last = Simulation(replace(SCENARIO, **changes), *parts, seed=0).run()
    return last.clients


@pytest.fixture(scope="module")
def honest(parts):
    return end_of(parts)


def clipped(rank):
    return replace(SCENARIO.method, terms=replace(SCENARIO.method.terms, clip_rank=rank))


MEAN = replace(SCENARIO.method, name="mean-probabilities")


@pytest.mark.parametrize("kind", ["lma", "random"])
def test_without_clip_and_canaries_one_liar_owns_every_probe(parts, honest, kind):
    assert end_of(parts, attack=AttackTerms(1, kind), method=clipped(1)) < honest - 0.15


@pytest.mark.parametrize("kind", ["lma", "random"])
def test_with_clip_and_canaries_one_liar_costs_little(parts, honest, kind):
    assert end_of(parts, attack=AttackTerms(1, kind), canaries=True) > honest - 0.05


@pytest.mark.parametrize("kind", ["lma", "pcfdla", "sybils"])
def test_two_attackers_in_five_ruin_the_mean_and_not_clip_and_canaries(parts, honest, kind):
    attack = AttackTerms(MANY, kind)
    assert end_of(parts, attack=attack, method=MEAN) < honest - 0.15
    assert end_of(parts, attack=attack, method=clipped(MANY + 1), canaries=True) > honest - 0.08


def test_who_claims_honestly_owns_fewer_probes_than_who_claims_everything(parts):
    modest, boastful = (
        end_of(parts, attack=AttackTerms(1, "lma", claims), method=clipped(1)) for claims in ("honest", "everything")
    )
    assert modest > boastful + 0.1


def test_who_only_overclaims_harms_nobody_much(parts, honest):
    assert end_of(parts, attack=AttackTerms(1, "overclaim")) > honest - 0.05


def test_a_liar_is_not_asked_how_well_it_does(parts):
    simulation = Simulation(replace(SCENARIO, attack=AttackTerms(2)), *parts, seed=0)
    assert [device.number for device in simulation.honest] == list(range(2, DEVICES))
    assert [device.number for device in simulation.liars] == [0, 1]
