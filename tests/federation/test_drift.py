"""Devices whose world changes meet their new rows as programs do, and the federation goes on."""

from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Kind
from fleet_sim.federation.lanes import Lanes
from fleet_sim.federation.simulation import FEDERATION, Simulation
from fleet_sim.partitions import Drift, ImageShift, LabelNoise
from fleet_sim.scenario import Crashes
from tests.federation.stage import DEVICES, ROUNDS, SCENARIO, SEED, consensuses

DRIFTING = replace(SCENARIO, drift=Drift(window=0.5, cycle_rounds=4))


def test_a_device_holds_the_rows_of_the_round_and_no_others(stage, tmp_path):
    simulation = stage.simulation(DRIFTING, folder=tmp_path)
    holdings = DRIFTING.holdings(SEED)
    held = [[device.plan.private for device in simulation.devices]]
    held += [[device.plan.private for device in simulation.devices] for _ in simulation.run()]
    for number, rows in enumerate(held, start=1):
        for mine, expected, all_of_them in zip(rows, holdings.of(max(1, number - 1)), stage.world.private, strict=True):
            np.testing.assert_array_equal(mine.samples, expected.values)
            assert len(mine) == -(-len(all_of_them) // 2)
    assert not np.array_equal(held[1][0].samples, held[2][0].samples)


def test_new_rows_begin_a_private_epoch_with_a_map_of_its_own(stage, tmp_path):
    simulation = stage.simulation(DRIFTING, folder=tmp_path)
    for _ in simulation.run():
        pass
    assert {device.agent.state.private_epoch for device in simulation.devices} == {ROUNDS}
    maps = list(simulation.server.store.payloads(FEDERATION, Kind.COMPETENCE.value))
    assert {row.device for row in maps} == {device.id for device in simulation.devices}
    assert max(row.round for row in maps) == ROUNDS


def test_what_was_learnt_outlives_the_change(stage, tmp_path):
    simulation = stage.simulation(DRIFTING, folder=tmp_path)
    next(simulation.run())
    device = simulation.devices[0]
    features = stage.lab.rows(device.profile.family, stage.world.test).features
    learnt, fresh = device.core.logits(features), stage.simulation().devices[0].core.logits(features)
    device.renew(device.plan.private)
    np.testing.assert_array_equal(device.core.logits(features), learnt)
    assert not np.array_equal(learnt, fresh)


def test_a_drifting_federation_is_the_same_with_the_same_seed_in_several_processes_and_with_crashes(stage, tmp_path):
    def played(name, scenario=DRIFTING, **more):
        (tmp_path / name).mkdir()
        return consensuses(
            list(Simulation(scenario, stage.world, stage.equipment, SEED, folder=tmp_path / name, **more).run())
        )

    alone = played("alone")
    assert alone != consensuses(stage.play())
    assert played("crashed", replace(DRIFTING, crashes=Crashes(device=0.1))) == alone
    with Lanes(stage.equipment.public, 2) as lanes:
        assert played("lanes", cores=lanes) == alone


def test_a_shift_that_grows_leaves_the_first_round_as_it_was_recorded_and_ends_at_its_full_strength():
    plain = replace(SCENARIO, image_shift=ImageShift(brightness=0.4), label_noise=LabelNoise(0.3))
    growing = replace(plain, drift=Drift(shift_rounds=2)).holdings(SEED)
    first, second, last = (growing.of(number) for number in (1, 2, 3))
    unshifted, shifted = replace(plain, image_shift=None).world(SEED).private, plain.world(SEED).private
    for device in range(DEVICES):
        np.testing.assert_array_equal(first[device].values, unshifted[device].values)
        np.testing.assert_array_equal(last[device].values, shifted[device].values)
        np.testing.assert_array_equal(last[device].labels, shifted[device].labels)
        assert not np.array_equal(second[device].values, last[device].values)


def test_rows_that_drift_need_a_disk(stage):
    with pytest.raises(InvalidValueError, match="checkpoints"):
        stage.simulation(DRIFTING)
