"""Looking at fewer devices, or less often, saves time and changes nothing but what is seen."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fleet_sim.baselines.factory_model import accuracy
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.scenario import PRESETS, MeasuringTerms, ModelTerms
from fleet_sim.worlds import digits

SCENARIO = replace(PRESETS["digits"], devices=5, rounds=3, models=ModelTerms(("mlp-s",), "mlp-s", pretraining=None))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    world = digits(0, devices=5, alpha=1.0, own_fraction=0.2)
    return world, equip(world, SCENARIO.models, 0, tmp_path_factory.mktemp("factory"))


def simulation(parts, **terms):
    return Simulation(replace(SCENARIO, measuring=MeasuringTerms(**terms)), *parts, seed=0)


@pytest.fixture(scope="module")
def exact(parts):
    return list(simulation(parts).run())


def test_nothing_said_means_all_devices_after_every_round(parts):
    played = simulation(parts)
    for result in played.run():
        rows = played.observer.lab.rows("mlp-s", parts[0].test)
        assert result.clients == np.mean([accuracy(d.core.logits(rows.features), rows) for d in played.devices])


def test_between_two_measurements_there_is_nothing_to_see_and_the_last_round_is_always_measured(parts, exact):
    results = list(simulation(parts, every=2).run())
    assert [math.isnan(result.clients) for result in results] == [True, False, False]
    assert results[1:] == exact[1:]
    unseen = results[0]
    assert all(math.isnan(share) for share in (unseen.student, unseen.own, unseen.own_uncorrected))
    assert (unseen.consensus_sha256, unseen.sent_bytes) == (exact[0].consensus_sha256, exact[0].sent_bytes)


def test_those_who_are_asked_speak_for_all_and_are_the_same_every_time(parts, exact):
    played = simulation(parts, devices=2)
    for result, whole in zip(played.run(), exact, strict=True):
        asked = played.observer._drawn(played.honest)
        assert len(asked) == 2
        assert asked == played.observer._drawn(played.honest)
        rows = played.observer.lab.rows("mlp-s", parts[0].test)
        assert result.clients == np.mean([accuracy(d.core.logits(rows.features), rows) for d in asked])
        assert (result.consensus_sha256, result.student) == (whole.consensus_sha256, whole.student)
        assert result.sent_bytes == whole.sent_bytes


def test_more_than_there_are_is_all(parts, exact):
    assert list(simulation(parts, devices=99).run()) == exact


@pytest.mark.parametrize("terms", [{"every": 0}, {"devices": -1}])
def test_terms_that_say_nothing_are_refused(terms):
    with pytest.raises(InvalidValueError):
        MeasuringTerms(**terms)
