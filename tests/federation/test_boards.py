"""A federation played in time: jobs and messages take as long as boards and links need, devices come and go."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from broker_server.records.chronicle import Chronicle
from fd_protocol.errors import InvalidValueError
from fleet_sim.boards.terms import Attendance, BoardTerms
from fleet_sim.federation.lanes import Lanes
from fleet_sim.federation.simulation import FEDERATION, Simulation, StuckError
from tests.federation.stage import DEVICES, ROUNDS, SCENARIO, SEED, consensuses

MIXED = (
    BoardTerms("pi-zero-2w", "nb-iot"),
    BoardTerms("pi-4", "wifi"),
    BoardTerms("pi-5", "lte"),
    BoardTerms("orin-nano", "ethernet"),
)
TIMED = replace(SCENARIO, boards=MIXED)
BUSY = replace(TIMED, rounds=6, attendance=Attendance(offline=0.25, stragglers=0.25, late=0.25, leave=0.05))


def test_where_everyone_is_there_time_changes_no_consensus(stage, undisturbed):
    results = stage.play(TIMED)
    assert consensuses(results) == undisturbed
    assert [result.heard for result in results] == [DEVICES] * ROUNDS
    assert all(before.seconds < after.seconds for before, after in pairwise(results))


def test_a_slower_link_makes_a_longer_round(stage):
    pause_s = TIMED.attendance.pause_s
    lasts = {}
    for link in ("ethernet", "lte-m", "nb-iot"):
        first, *_, last = stage.play(replace(SCENARIO, boards=(BoardTerms("pi-4", link),)))
        lasts[link] = (last.seconds - first.seconds) / (ROUNDS - 1) - pause_s
        sent = (last.sent_bytes - first.sent_bytes) / (ROUNDS - 1)
    assert lasts["ethernet"] < lasts["lte-m"] < lasts["nb-iot"]
    # A round is at least an offer down and what a device sends up, one after the other.
    assert lasts["nb-iot"] > 2 * 1.6 + 8 * sent / 20_000 - 0.1


def test_a_timed_play_is_the_same_for_the_same_seed_and_in_other_processes(stage):
    first, again = stage.play(BUSY), stage.play(BUSY)
    with Lanes(stage.equipment.public, 2) as lanes:
        simulation = Simulation(BUSY, stage.world, stage.equipment, SEED, lab=stage.lab, cores=lanes)
        elsewhere = list(simulation.run())
    for other in (again, elsewhere):
        assert consensuses(other) == consensuses(first)
        assert [result.seconds for result in other] == [result.seconds for result in first]
    assert consensuses(stage.play(BUSY, seed=1)) != consensuses(first)


def test_who_is_offline_is_not_heard_and_counts_with_what_it_said_last(stage):
    simulation = stage.simulation(replace(TIMED, rounds=5, attendance=Attendance(offline=0.5)))
    for result in simulation.run():
        metrics = simulation.server.aggregator.state.consensus.metrics
        assert result.heard == DEVICES / 2
        assert metrics["voices"] - metrics["absent_voices"] == DEVICES / 2
    assert metrics["absent_voices"] > 0
    assert {row.heard for row in simulation.totals()} != {1.0}


def test_a_straggler_that_misses_the_deadline_is_not_waited_for(stage):
    slow = Attendance(stragglers=0.25, slowdown=1e6, round_s=30)
    results = stage.play(replace(SCENARIO, boards=(BoardTerms("pi-4"),), attendance=slow))
    assert [result.heard for result in results] == [DEVICES - 1] * ROUNDS


def test_attendance_alone_is_of_the_usual_board(stage):
    simulation = stage.simulation(replace(SCENARIO, attendance=Attendance(pause_s=20)))
    list(simulation.run())
    (row,) = simulation.totals()
    assert (row.board, row.link, row.devices) == ("pi-4", "wifi", DEVICES)
    assert row.total_j > 0


def test_a_board_whose_battery_was_empty_comes_back_with_what_it_had_learnt(stage, tmp_path):
    weak = BoardTerms("pi-4", battery_wh=0.01, charge_w=1.5)  # 36 J: dark after some 45 s, back after 2.4 s more
    scenario = replace(SCENARIO, rounds=8, boards=(weak, *MIXED[1:]), attendance=Attendance(pause_s=20))
    simulation = stage.simulation(scenario, folder=tmp_path)
    results = list(simulation.run())
    device, place = simulation.devices[0], simulation.boards.places[0]
    assert place.dark > 0
    assert device.agent.state.now_ms > 0
    assert (tmp_path / f"{device.id}.checkpoint").exists()
    test = stage.lab.rows(device.profile.family, stage.world.test)
    fresh = stage.lab.factory_model(device.profile.family)
    assert not np.allclose(device.core.logits(test.features), fresh.logits(fresh.theta, test))
    assert results[-1].number == 8
    with pytest.raises(InvalidValueError, match="folder"):
        stage.simulation(scenario)


def test_outages_break_messages_and_nothing_is_lost_or_counted_twice(stage):
    shaky = tuple(replace(board, online=0.8, outage_s=3) for board in MIXED)
    simulation = stage.simulation(replace(SCENARIO, rounds=5, boards=shaky))
    assert max(result.heard for result in simulation.run()) <= DEVICES
    chronicle = Chronicle(simulation.server.store, FEDERATION)
    hearings = [one for each in chronicle.rounds() for one in chronicle.hearings(each.epoch, each.number)]
    stored = Counter(
        (one.device, one.round) for one in hearings if (one.kind, one.status) == ("contribution", "stored")
    )
    assert set(stored.values()) == {1}
    late = stored.total() - simulation._heard.total()  # they count from the next round on
    assert 0 <= late == simulation.server.aggregator.counters["contribution.stored"] - simulation._heard.total()


def test_those_who_left_are_asked_nothing_any_more(stage):
    simulation = stage.simulation(replace(TIMED, rounds=6, attendance=Attendance(leave=0.1, round_s=20)))
    list(simulation.run())
    left = [device for device in simulation.devices if simulation.boards.places[device.number].has_left]
    assert left
    assert not any(device.is_on for device in left)


def test_a_fleet_that_everyone_has_left_is_said_to_be_stuck(stage):
    with pytest.raises(StuckError, match="every device has left"):
        stage.play(replace(TIMED, rounds=50, attendance=Attendance(leave=0.5)))


def test_a_fleet_that_nobody_hears_is_said_to_be_stuck(stage):
    deaf = replace(SCENARIO, boards=(BoardTerms("pi-4", "nb-iot"),), attendance=Attendance(round_s=2))
    with pytest.raises(StuckError, match="nobody was heard"):
        stage.play(deaf)
